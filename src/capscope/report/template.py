"""Filling the page templates: everything is escaped, and style and script stand in the page."""

from __future__ import annotations

from importlib import resources
from typing import Any

import jinja2


def render(template: str, **values: Any) -> str:
    """Fill a template of this folder; an undefined name is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["shade"] = shade
    style, script = _read("page.css"), _read("page.js")
    return environment.get_template(template).render(style=style, script=script, **values)


def shade(strength: float) -> str:
    """Return the background of a word: red for, blue against, transparent for nothing."""
    red, green, blue = (214, 42, 31) if strength > 0 else (31, 95, 168)
    return f"rgba({red},{green},{blue},{abs(strength) * 0.55:.2f})"


def _read(name: str) -> str:
    return resources.files("capscope.report").joinpath(name).read_text("utf-8")
