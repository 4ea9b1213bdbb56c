"""Relevance of objects by class, overlap and mask: by hand and by counting."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toy_context import toy_context

from capscope.benchmarks.latent_objects import (
    WHOLE,
    Finder,
    Objects,
    measure_latent_objects,
    object_rows,
)
from capscope.errors import CapscopeError
from capscope.explain.words import scene_words
from capscope.features.visual import Features

SETTINGS: dict[str, Any] = {"images": 4, "by": ["mask"], "overlap": 0.5, "covered": 0.25}


class Store(SimpleNamespace):
    """Regions of one image: two dogs that overlap, a cat, something without a name, padding."""

    kind = "regions"

    def read(self, ids: list[int]) -> Features:
        box, near = [0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.6]
        boxes = torch.tensor([[box, [0.5, 0.5, 1, 1], near, [0.0, 0.5, 0.5, 1], [0.0] * 4]])
        valid = torch.tensor([[True, True, True, True, False]])
        class_ids = torch.tensor([[1, 0, 1, -1, -1]])
        return Features(torch.rand(1, 5, 3), boxes, valid, None, class_ids)


def found_in_regions(tmp_path: Path, by: list[str]) -> list[Objects]:
    store = Store(attributes={"class_names": ["cat", "dog"]})
    context: Any = SimpleNamespace(features=store, data_dir=tmp_path, stores=[])
    return Finder(context, {**SETTINGS, "by": by})(1, SimpleNamespace(grid=torch.zeros(1, 5, 1)))  # type: ignore[arg-type]


def test_regions_are_grouped_by_class_and_by_overlap(tmp_path: Path) -> None:
    by_class, by_overlap = found_in_regions(tmp_path, ["class", "overlap", "mask"])
    assert by_class.labels == ("dog", "cat", "")
    assert by_class.groups.int().tolist() == [[1, 0, 1, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 1, 0]]
    assert by_overlap.labels == ("dog", "cat", "")
    assert torch.equal(by_overlap.groups, by_class.groups)
    maps = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])
    assert by_class.relevance(maps).tolist() == [[4.0, 2.0, 4.0]]


def test_an_unknown_grouping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CapscopeError, match=r"latent_objects\.by has colour"):
        found_in_regions(tmp_path, ["colour"])


def test_the_object_under_a_mask_gets_the_relevance_of_its_cells(tmp_path: Path) -> None:
    context = toy_context(tmp_path, false_words=False)
    rows = list(object_rows(context, SETTINGS))
    store = context.stores[0]
    finder = Finder(context, SETTINGS)
    stored = store[1]
    (objects,) = finder(stored.image_id, stored)
    mine = [r for r in rows if r.explainer == "lrp" and r.image_id == stored.image_id]
    assert {row.label for row in mine} == set(objects.labels)
    for row in mine:
        cells = objects.groups[row.object]
        relevance = stored.grid.flatten(1)[:, cells].sum(1)
        expected = relevance.sum() if row.position < 0 else relevance[row.position]
        assert row.relevance == pytest.approx(float(expected), abs=1e-5)
        assert (row.word == WHOLE) == (row.position == -1)
        assert row.features == int(cells.sum())


def test_choice_is_how_often_a_named_object_gets_the_most(tmp_path: Path) -> None:
    context = toy_context(tmp_path, false_words=False)
    rows = measure_latent_objects(context, SETTINGS, resamples=5, seed=1)
    found = {(row.explainer, row.word_kind, row.measure): row for row in rows}
    finder, hits = Finder(context, SETTINGS), []
    for n in range(SETTINGS["images"]):
        stored = context.stores[0][n]
        (objects,) = finder(stored.image_id, stored)
        words = [context.vocabulary.words[word_id] for word_id in stored.word_ids]
        seen = [k for k in range(len(objects.labels)) if objects.groups[k].any()]
        for word in scene_words(words):
            named = [k for k in seen if objects.labels[k] in word.about]
            if word.kind == "noun" and named and len(named) < len(seen):
                relevance = objects.relevance(stored.grid.flatten(1))[word.position]
                hits.append(max(seen, key=lambda k: float(relevance[k])) in named)
    own = found["lrp", "noun", "choice mask"]
    assert own.n == len(hits) > 0
    assert own.value == pytest.approx(sum(hits) / len(hits))
    assert 0 <= found["lrp", "noun", "share mask"].value <= 1
