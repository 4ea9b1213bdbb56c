"""Filling the page templates: everything that comes from data is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import jinja2

from capscope import __version__

ASSETS = ("site.css", "theme.js", "site.js", "viewer.js", "gallery.js")
"""Files that the pages of a site share; a single page has them inside."""
ALONE = {"single": True, "root": "", "home": "", "links": (), "subject": "", "title": "captions"}
"""What a page that needs no other file says of its surroundings, unless it says otherwise."""


def render(template: str, **values: Any) -> str:
    """Fill a template of ``pages``; an undefined name is an error."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(asset),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals.update(ALONE, asset=asset, version=__version__)
    return environment


def with_pages(page: str, links: Sequence[Mapping[str, Any]]) -> str:
    """Return a page that was written to stand alone, with links to the pages of a site."""
    head, found, rest = page.partition("</header>")
    return f"{head}{render('pages.jinja', links=links)}{found}{rest}" if found else page


def asset(name: str) -> str:
    """Return the text of a file of ``pages``."""
    return resources.files("capscope.report").joinpath("pages", name).read_text("utf-8")
