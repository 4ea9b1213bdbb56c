"""Docstrings as autodoc is to read them."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx


def escape_bars(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Keep |x|, an absolute value here, from being read as a substitution."""
    for number, line in enumerate(lines):
        parts = re.split(r"(``.+?``)", line)
        parts[::2] = [text.replace("|", r"\|") for text in parts[::2]]
        lines[number] = "".join(parts)


def skip_field_numbers(
    app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out the fields of named tuples that have no docstring of their own."""
    text = getattr(thing, "__doc__", None) or ""
    return True if text.startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Be asked for each docstring, before it is read as NumPy style."""
    app.connect("autodoc-process-docstring", escape_bars, priority=400)
    app.connect("autodoc-skip-member", skip_field_numbers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
