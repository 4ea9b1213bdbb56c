"""Pages and pictures that are made from the code, each time that the site is built."""

from __future__ import annotations

from pathlib import Path

from diagram import PICTURE, draw
from package_pages import package_pages
from parameter_page import parameter_page
from sphinx.application import Sphinx


def write(app: Sphinx) -> None:
    """Write what has changed where Sphinx finds it, and remove pages of rooms that are gone."""
    reference = Path(app.srcdir) / "reference"
    package = {reference / "package" / name: text for name, text in package_pages().items()}
    for path in (reference / "package").glob("*.rst"):
        if path not in package:
            path.unlink()
    files = {**package, reference / "parameters.rst": parameter_page(), PICTURE: draw()}
    for path, text in files.items():
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Write before Sphinx looks for pages."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
