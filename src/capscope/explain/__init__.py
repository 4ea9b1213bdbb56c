"""Explainers, one a file. To add one, write the file and add a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capscope.registry import find_class

if TYPE_CHECKING:
    from capscope.explain.explainer import Explainer

EXPLAINERS = {
    "lrp": "capscope.explain.lrp:LRP",
    "attn_lrp": "capscope.explain.attn_lrp:AttnLRP",
    "alpha_beta_lrp": "capscope.explain.alpha_beta_lrp:AlphaBetaLRP",
    "attention": "capscope.explain.attention:Attention",
    "attention_lrp": "capscope.explain.attention:AttentionThenLRP",
    "attention_rollout": "capscope.explain.attention_rollout:AttentionRollout",
    "gradcam": "capscope.explain.gradcam:GradCAM",
    "guided_gradcam": "capscope.explain.guided_gradcam:GuidedGradCAM",
    "gradient": "capscope.explain.gradient:Gradient",
    "guided_backprop": "capscope.explain.guided_backprop:GuidedBackprop",
    "gradient_x_input": "capscope.explain.gradient_x_input:GradientXInput",
    "gradient_lrp": "capscope.explain.gradient_x_input:GradientThenLRP",
    "integrated_gradients": "capscope.explain.integrated_gradients:IntegratedGradients",
    "lime": "capscope.explain.lime:LIME",
    "lime1": "capscope.explain.lime_published:LIME1",
    "lime2": "capscope.explain.lime_published:LIME2",
    "lime3": "capscope.explain.lime_published:LIME3",
    "lime4": "capscope.explain.lime_published:LIME4",
    "lime5": "capscope.explain.lime_published:LIME5",
    "lime_5obj": "capscope.explain.lime_published:LIME5Objects",
    "lime_8obj": "capscope.explain.lime_published:LIME8Objects",
    "feature_norm": "capscope.explain.controls:FeatureNorm",
    "random_decoder": "capscope.explain.controls:RandomDecoder",
    "initial_decoder": "capscope.explain.controls:InitialDecoder",
}


def explainer_class(name: str) -> type[Explainer]:
    """Return the class of an explainer by its name in `EXPLAINERS`."""
    found: type[Explainer] = find_class(EXPLAINERS, name, "explainer")
    return found
