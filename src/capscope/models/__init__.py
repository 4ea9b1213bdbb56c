"""Captioners, one a file. To add one, write the file and add a line here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from capscope.errors import CapscopeError

if TYPE_CHECKING:
    from capscope.models.captioner import Captioner

CAPTIONERS = {
    "gridtd": "capscope.models.gridtd:GridTD",
}


def captioner_class(name: str) -> type[Captioner]:
    """Return the class of a captioner by its name in `CAPTIONERS`."""
    if name not in CAPTIONERS:
        raise CapscopeError(f"unknown captioner {name!r}; there are: {', '.join(CAPTIONERS)}")
    module, attribute = CAPTIONERS[name].split(":")
    found: type[Captioner] = getattr(import_module(module), attribute)
    return found


def build(name: str, **config: Any) -> Captioner:
    """Build a captioner with new weights; `config` holds its constructor's arguments."""
    return captioner_class(name)(**config)
