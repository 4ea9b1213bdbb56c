"""Which words are right: against the recipes of drawn scenes, word by word."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from toy_context import toy_context

from capscope.benchmarks.context import Context
from capscope.benchmarks.judged import JudgedWord, judged_words
from capscope.benchmarks.measurement import write_rows
from capscope.data.scenes.write import read_recipes
from capscope.explain.words import scene_words


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """Captions that are references, half of them of other images."""
    return toy_context(tmp_path_factory.mktemp("judged"))


def test_words_of_scenes_are_judged_by_what_was_drawn(context: Context) -> None:
    recipes = read_recipes(context.data_dir)
    found = {(word.image_id, word.position): word for word in judged_words(context)}
    store = context.stores[0]
    verdicts = set()
    for row in range(len(store)):
        caption = store[row]
        words = [context.vocabulary.words[word_id] for word_id in caption.word_ids]
        things = recipes[caption.image_id].objects
        told = {
            name
            for tokens in context.dataset.by_id(caption.image_id).tokens
            for word in scene_words(tokens)
            if word.kind == "noun"
            for name in word.about
        }
        for word in scene_words(words):
            judged = found.pop((caption.image_id, word.position), None)
            if word.kind not in ("noun", "colour", "size"):
                assert judged is None
                continue
            alike = [thing for thing in things if thing.name in word.about]
            fitting = [
                thing
                for thing in alike
                if word.colour in (None, thing.colour) and word.size in (None, thing.size)
            ]
            if not alike and not told & set(word.about):
                expected = "hallucinated"
            elif word.kind != "noun" and not fitting:
                expected = "wrong"
            else:
                expected = "right"
            assert judged is not None
            assert (judged.verdict, judged.word) == (expected, words[word.position])
            verdicts.add(expected)
    assert found == {}
    assert {"right", "hallucinated"} <= verdicts


def test_photographs_tell_of_object_words_only(context: Context) -> None:
    """Without recipes there are boxes and references; colours are nobody's to judge."""
    (context.data_dir / "scenes.json").rename(context.data_dir / "kept.json")
    try:
        kinds = {word.kind for word in judged_words(context)}
    finally:
        (context.data_dir / "kept.json").rename(context.data_dir / "scenes.json")
    assert kinds == {"noun"}


def test_the_table_has_a_row_for_each_judged_word(context: Context, tmp_path: Path) -> None:
    words = list(judged_words(context))
    write_rows(tmp_path / "words.csv", JudgedWord._fields, words)
    with (tmp_path / "words.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["verdict"] for row in rows] == [word.verdict for word in words]
    assert json.loads(rows[0]["image_id"]) == words[0].image_id
