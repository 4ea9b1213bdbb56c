"""Explanations in latent space: visual features of one image are perturbed behind the projection.

`masks` says which features are perturbed together, `replacement` what stands in their place,
`perturbed` what the captioner says then, `surrogate` fits a linear model to it, `objects` groups
features into objects, and `published` has the seven variants of Elguendouze et al. 2023.
"""
