"""Captioners, one a file. To add one, write the file and add a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from capscope.registry import find_class

if TYPE_CHECKING:
    from capscope.models.captioner import Captioner

CAPTIONERS = {
    "adaptive": "capscope.models.adaptive:Adaptive",
    "aoa": "capscope.models.aoa:AoA",
    "attention_lstm": "capscope.models.recurrent:AttentionLSTM",
    "base": "capscope.models.base:BaseTransformer",
    "difnet": "capscope.models.difnet:DIFNet",
    "gridtd": "capscope.models.gridtd:GridTD",
    "lstm": "capscope.models.recurrent:LSTMCaptioner",
    "object_relation": "capscope.models.object_relation:ObjectRelationTransformer",
    "rnn": "capscope.models.recurrent:VanillaRNN",
    "show_attend_tell": "capscope.models.show_attend_tell:ShowAttendTell",
    "show_tell": "capscope.models.show_tell:ShowTell",
    "spatial": "capscope.models.spatial:SpatialTransformer",
}


def captioner_class(name: str) -> type[Captioner]:
    """Return the class of a captioner by its name in `CAPTIONERS`."""
    found: type[Captioner] = find_class(CAPTIONERS, name, "captioner")
    return found


def configure(
    name: str,
    kind: str,
    settings: Mapping[str, Any],
    count: int | None = None,
    segments: int | None = None,
) -> dict[str, Any]:
    """Return `settings`, those that are missing or None taken from the visual features.

    Parameters
    ----------
    name : str
        A captioner in `CAPTIONERS`.
    kind : str
        grid or regions.
    settings : mapping
        Constructor arguments, as in ``systems.<name>.model`` of the parameters.
    count : int, optional
        Visual features of an image: the argument ``cells`` of a captioner that flattens them.
    segments : int, optional
        Classes of an image's segments: the argument ``segment_size`` of difnet.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    if given.get("visual") == "flatten" and count is not None:
        given.setdefault("cells", count)
    if name == "difnet" and segments is not None:
        given["segment_size"] = segments
    return {**captioner_class(name).by_kind.get(kind, {}), **given}


def build(name: str, **config: Any) -> Captioner:
    """Build a captioner with new weights; `config` holds its constructor's arguments."""
    return captioner_class(name)(**config)
