"""Tables of classes that can be chosen by name; one is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from capscope.errors import CapscopeError


def find_class(table: Mapping[str, str], name: str, kind: str) -> Any:
    """Return the class that `table` has under `name`, given there as ``module:class``.

    Raises
    ------
    CapscopeError
        Listing the names there are, and what `kind` of thing they name.
    """
    if name not in table:
        raise CapscopeError(f"unknown {kind} {name!r}; there are: {', '.join(table)}")
    module, attribute = table[name].split(":")
    return getattr(import_module(module), attribute)
