"""The house stands as docs/architecture.md says: arrows point one way, modules stay small."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "capscope"

# Each room may import itself and the rooms named here; docs/architecture.md explains why.
FOUNDATION = {"errors", "files", "lifeline", "lock", "params", "registry", "tensors"}
ROOMS = {
    "errors": set(),
    "lifeline": set(),
    "lock": {"errors"},
    "files": {"errors", "lock"},
    "params": {"errors"},
    "registry": {"errors"},
    "tensors": {"errors", "files"},
    "pickled_data": {"errors"},
    "foreign": {"errors", "lifeline", "tensors", "pickled_data"},
    "data": FOUNDATION,
    "features": FOUNDATION | {"data"},
    "relevance": FOUNDATION | {"data", "features"},
    "models": FOUNDATION | {"data", "features", "relevance"},
    "importers": FOUNDATION | {"data", "features", "models", "pickled_data"},
    "metrics": FOUNDATION | {"data", "pickled_data"},
    "decoding": FOUNDATION | {"data", "features", "models"},
    "training": FOUNDATION | {"data", "features", "relevance", "models", "decoding", "metrics"},
    "explain": FOUNDATION | {"data", "features", "relevance", "models", "decoding"},
    "benchmarks": FOUNDATION
    | {"data", "features", "relevance", "models", "decoding", "metrics", "explain"},
    "report": FOUNDATION | {"data", "relevance", "metrics"},
}
ROOMS["cli"] = set(ROOMS)

MODULES = sorted(SOURCE.rglob("*.py"))


def room(path):
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


def imported_rooms(path):
    """Rooms that a module imports, inside functions too, but not for type checking alone."""
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


def _is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_one_way(path):
    here = room(path)
    assert here == "" or here in ROOMS, f"room {here!r} is not in the plan"
    wrong = set(imported_rooms(path)) - {here} - ROOMS.get(here, set())
    assert not wrong, f"{here} must not import {sorted(wrong)}"


def test_the_plan_itself_has_no_cycle():
    left = dict(ROOMS)
    while left:
        free = [name for name, uses in left.items() if not uses & set(left) - {name}]
        assert free, f"a cycle among {sorted(left)}"
        for name in free:
            del left[name]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_modules_are_short_and_named_for_what_they_hold(path):
    assert len(path.read_text("utf-8").splitlines()) <= 400
    assert path.stem not in {"utils", "helpers", "common", "misc"}


def test_every_module_says_what_it_is():
    texts = {path: path.read_text("utf-8") for path in MODULES}
    silent = [
        str(path.relative_to(SOURCE))
        for path, text in texts.items()
        if text.strip() and not ast.get_docstring(ast.parse(text))
    ]
    assert silent == []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_nothing_unpickles(path):
    """Torch files are read as weights only; pickle is imported for its exception, if at all."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
            assert node.attr == "UnpicklingError"
        elif isinstance(node, ast.ImportFrom):
            assert node.module not in {"pickle", "marshal", "shelve", "joblib"}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert {key.arg: ast.unparse(key.value) for key in node.keywords}[
                "weights_only"
            ] == "True"
