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
    "gridtd": "capscope.models.gridtd:GridTD",
    "lstm": "capscope.models.recurrent:LSTMCaptioner",
    "rnn": "capscope.models.recurrent:VanillaRNN",
}


def captioner_class(name: str) -> type[Captioner]:
    """Return the class of a captioner by its name in `CAPTIONERS`."""
    found: type[Captioner] = find_class(CAPTIONERS, name, "captioner")
    return found


def configure(name: str, kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return `settings`, those that are missing or None taken from the kind of visual features.

    Parameters
    ----------
    name : str
        A captioner in `CAPTIONERS`.
    kind : str
        grid or regions.
    settings : mapping
        Constructor arguments, as in ``systems.<name>.model`` of the parameters.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    return {**captioner_class(name).by_kind.get(kind, {}), **given}


def build(name: str, **config: Any) -> Captioner:
    """Build a captioner with new weights; `config` holds its constructor's arguments."""
    return captioner_class(name)(**config)
