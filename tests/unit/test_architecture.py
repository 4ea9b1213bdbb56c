"""The house stands as docs/architecture.md says: arrows point one way, modules stay small."""

import ast

import pytest
from diagram import PICTURE, draw, drawn_rooms, reduced
from imports import SOURCE, imported_rooms, modules, room

# Each room may import itself and the rooms named here; docs/architecture.md explains why.
FOUNDATION = {"errors", "files", "lifeline", "lock", "params", "registry", "shards", "tensors"}
ROOMS = {
    "errors": set(),
    "lifeline": set(),
    "lock": {"errors", "lifeline"},
    "files": {"errors", "lock"},
    "shards": {"errors", "files"},
    "records": {"errors", "files"},
    "subject": set(),
    "provenance": {"errors", "files", "records", "subject"},
    "params": {"errors"},
    "registry": {"errors"},
    "tensors": {"errors", "files", "lifeline"},
    "pickled_data": {"errors"},
    "foreign": {"errors", "tensors", "pickled_data"},
    "data": FOUNDATION,
    "features": FOUNDATION | {"data"},
    "relevance": FOUNDATION | {"data", "features"},
    "models": FOUNDATION | {"data", "features", "relevance"},
    "importers": FOUNDATION | {"data", "features", "models", "pickled_data"},
    "metrics": FOUNDATION | {"data", "pickled_data"},
    "decoding": FOUNDATION | {"data", "features", "relevance", "models"},
    "training": FOUNDATION | {"data", "features", "relevance", "models", "decoding", "metrics"},
    "explain": FOUNDATION | {"data", "features", "relevance", "models", "decoding"},
    "benchmarks": FOUNDATION
    | {"data", "features", "relevance", "models", "decoding", "metrics", "explain", "pickled_data"},
    "planning": {"errors", "params"},
    "report": FOUNDATION | {"data", "relevance", "metrics"},
}
ROOMS["cli"] = set(ROOMS)

MODULES = modules()


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


def test_the_picture_of_the_house_shows_its_imports():
    assert PICTURE.read_text("utf-8") == draw(), "`make docs` draws it anew"


def test_arrows_that_others_lead_round_to_are_all_that_the_picture_leaves_out():
    graph = drawn_rooms()
    drawn = reduced(graph)

    def below(name):
        return {one for used in drawn[name] for one in {used} | below(used)}

    for name, used in graph.items():
        assert drawn[name] <= used <= below(name)


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
