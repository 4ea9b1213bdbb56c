"""What a data set knows about the objects of its images: recipes of scenes, or boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from capscope.data.annotations import INSTANCES_FILE, Dataset, Image
from capscope.data.entities import parse_instances
from capscope.data.flickr_entities import NAME as ENTITIES
from capscope.data.naming import (
    ObjectWords,
    Words,
    coco_words,
    flickr30k_words,
    scene_words,
)
from capscope.data.scenes.recipe import Recipe
from capscope.data.scenes.write import read_recipes
from capscope.files import read_json
from capscope.metrics.frequent import (
    FREQUENT_WORDS,
    frequent_object_words,
    frequent_word_measures,
)
from capscope.metrics.objects import object_measures
from capscope.metrics.scenes import scene_measures
from capscope.metrics.statistics import Measure


@dataclass(frozen=True)
class ObjectTruth:
    """The depicted objects of each image, and the words for them.

    Attributes
    ----------
    words : ObjectWords
    depicted : mapping of image id to class names
    recipes : mapping, optional
        How scenes were drawn.
    published : sequence of str
        The published list of the data set's frequent words.
    frequent : sequence of str
        Object words, the most frequent of the training references first.
    cutoffs : sequence of int
        How many of them are scored.
    """

    words: ObjectWords
    depicted: Mapping[int, frozenset[str]]
    recipes: Mapping[int, Recipe] | None = None
    published: Sequence[str] = ()
    frequent: Sequence[str] = ()
    cutoffs: Sequence[int] = ()

    def measures(
        self,
        images: Sequence[Image],
        references: Sequence[Sequence[Words]],
        captions: Sequence[Words],
    ) -> dict[str, Measure]:
        """Score the objects that captions name; for scenes also colours and positions."""
        boxes = [self.depicted.get(image.id, frozenset()) for image in images]
        measures = object_measures(self.words, boxes, references, captions)
        if self.recipes is not None:
            measures |= scene_measures([self.recipes[image.id] for image in images], captions)
        if self.published:
            measures |= frequent_word_measures(self.published, references, captions)
        for cutoff in self.cutoffs:
            if cutoff <= len(self.frequent):
                measures |= frequent_word_measures(self.frequent, references, captions, cutoff)
        return measures


def read_truth(data_dir: Path, dataset: Dataset, cutoffs: Sequence[int] = ()) -> ObjectTruth | None:
    """Read what `data_dir` knows; None without boxes or with categories that have no words.

    Parameters
    ----------
    data_dir : Path
    dataset : Dataset
        The same, opened; the references of its training images tell which words are frequent.
    cutoffs : sequence of int
        How many of the most frequent object words are scored.
    """
    truth = _scenes(data_dir) or _boxes(data_dir)
    if truth is None or not cutoffs:
        return truth
    training = (image.tokens for image in dataset.split("train"))
    frequent = frequent_object_words(truth.words, training)
    return replace(truth, frequent=frequent, cutoffs=tuple(sorted(cutoffs)))


def _scenes(data_dir: Path) -> ObjectTruth | None:
    if not (data_dir / "scenes.json").exists():
        return None
    recipes = read_recipes(data_dir)
    depicted = {
        image_id: frozenset(thing.name for thing in recipe.objects)
        for image_id, recipe in recipes.items()
    }
    return ObjectTruth(scene_words(), depicted, recipes)


def _boxes(data_dir: Path) -> ObjectTruth | None:
    if not (data_dir / INSTANCES_FILE).exists():
        return None
    path = data_dir / INSTANCES_FILE
    loaded = read_json(path)
    instances = parse_instances(loaded, str(path))
    if loaded.get("info", {}).get("description") == ENTITIES:
        words, published = flickr30k_words(), FREQUENT_WORDS["flickr30k"]
    else:
        words, published = coco_words(), FREQUENT_WORDS["coco2017"]
    if not set(instances.categories.values()) <= words.classes:
        return None
    depicted = {
        image_id: frozenset(one.category for one in objects)
        for image_id, objects in instances.by_image.items()
    }
    return ObjectTruth(words, depicted, published=published)
