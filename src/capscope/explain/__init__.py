"""Explainers, one a file. To add one, write the file and add a line here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from capscope.errors import CapscopeError

if TYPE_CHECKING:
    from capscope.explain.explainer import Explainer

EXPLAINERS = {
    "lrp": "capscope.explain.lrp:LRP",
    "attention": "capscope.explain.attention:Attention",
    "attention_lrp": "capscope.explain.attention:AttentionThenLRP",
    "gradcam": "capscope.explain.gradcam:GradCAM",
    "gradient_x_input": "capscope.explain.gradient_x_input:GradientXInput",
    "gradient_lrp": "capscope.explain.gradient_x_input:GradientThenLRP",
    "feature_norm": "capscope.explain.controls:FeatureNorm",
    "random_decoder": "capscope.explain.controls:RandomDecoder",
    "initial_decoder": "capscope.explain.controls:InitialDecoder",
}


def explainer_class(name: str) -> type[Explainer]:
    """Return the class of an explainer by its name in `EXPLAINERS`."""
    if name not in EXPLAINERS:
        raise CapscopeError(f"unknown explainer {name!r}; there are: {', '.join(EXPLAINERS)}")
    module, attribute = EXPLAINERS[name].split(":")
    found: type[Explainer] = getattr(import_module(module), attribute)
    return found
