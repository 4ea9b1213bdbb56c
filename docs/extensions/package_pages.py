"""The reference of the package: a page for each room, of all its modules, from their docstrings."""

from __future__ import annotations

from imports import SOURCE, modules, room

LEFT_OUT = ("", "cli")
"""The package itself is empty, and the command line has a page of its own."""


def package_pages() -> dict[str, str]:
    """Return the text of each page, by file name."""
    rooms: dict[str, list[str]] = {}
    for path in modules():
        if room(path) not in LEFT_OUT and path.read_text("utf-8").strip():
            parts = path.relative_to(SOURCE).with_suffix("").parts
            names = parts[:-1] if parts[-1] == "__init__" else parts
            rooms.setdefault(room(path), []).append(".".join(("capscope", *names)))
    return {f"{name}.rst": _page(f"capscope.{name}", found) for name, found in rooms.items()}


def _page(title: str, names: list[str]) -> str:
    lines = [title, "=" * len(title), ""]
    for name in names:
        if name != title:
            lines += [name.removeprefix("capscope."), "-" * len(name), ""]
        lines += [f".. automodule:: {name}", ""]
    return "\n".join(lines)
