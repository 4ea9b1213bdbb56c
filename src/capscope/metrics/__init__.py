"""Caption metrics: what a caption is worth against references, objects and other captions.

For use from elsewhere::

    from capscope.metrics import evaluate_captions

    measures = evaluate_captions({7: ["A dog runs.", "The dog is running."]}, {7: "a dog"})
    measures["CIDEr"].value, measures["CIDEr"].per_image
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capscope.metrics.evaluate import evaluate_captions

__all__ = ["evaluate_captions"]


def __getattr__(name: str) -> Any:
    """Import what is asked for, so that rooms that need one metric do not load all."""
    if name == "evaluate_captions":
        from capscope.metrics.evaluate import evaluate_captions

        return evaluate_captions
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
