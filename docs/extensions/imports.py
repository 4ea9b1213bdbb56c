"""Which room of the package imports which: the arrows of the house, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src" / "capscope"


def modules() -> list[Path]:
    """Return the files of all modules of the package."""
    return sorted(SOURCE.rglob("*.py"))


def room(path: Path) -> str:
    """Return the room that a module is in; the package's own `__init__` is in none."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


def imported_rooms(path: Path) -> Iterator[str]:
    """Yield the rooms that a module imports, inside functions too, not for type checking alone."""
    package = ("capscope", *path.relative_to(SOURCE).parent.parts)
    tree = ast.parse(path.read_text("utf-8"))
    tree.body = [node for node in tree.body if not _is_type_checking(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "capscope" and len(parts) > 1 and not parts[1].startswith("__"):
                yield parts[1]


def arrows() -> dict[str, set[str]]:
    """Return the other rooms that each room imports."""
    found: dict[str, set[str]] = {}
    for path in modules():
        if room(path):
            found.setdefault(room(path), set()).update(imported_rooms(path))
    return {name: used - {name} for name, used in found.items()}


def _is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
