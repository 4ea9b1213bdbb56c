"""What a data set knows about the objects of its images: recipes of scenes, or boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from capscope.data.annotations import INSTANCES_FILE, Image
from capscope.data.entities import read_instances
from capscope.data.scenes.recipe import Recipe
from capscope.data.scenes.write import read_recipes
from capscope.metrics.frequent import FREQUENT_WORDS, frequent_word_measures
from capscope.metrics.objects import ObjectWords, Words, coco_words, object_measures, scene_words
from capscope.metrics.scenes import scene_measures
from capscope.metrics.statistics import Measure


@dataclass(frozen=True)
class ObjectTruth:
    """The depicted objects of each image, and the words for them."""

    words: ObjectWords
    depicted: Mapping[int, frozenset[str]]
    recipes: Mapping[int, Recipe] | None = None
    frequent: Sequence[str] = ()

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
        if self.frequent:
            measures |= frequent_word_measures(self.frequent, references, captions)
        return measures


def read_truth(data_dir: Path) -> ObjectTruth | None:
    """Read what `data_dir` knows; None without boxes or with categories that have no words."""
    if (data_dir / "scenes.json").exists():
        recipes = read_recipes(data_dir)
        depicted = {
            image_id: frozenset(thing.name for thing in recipe.objects)
            for image_id, recipe in recipes.items()
        }
        return ObjectTruth(scene_words(), depicted, recipes)
    if not (data_dir / INSTANCES_FILE).exists():
        return None
    instances = read_instances(data_dir / INSTANCES_FILE)
    if not set(instances.categories.values()) <= coco_words().classes:
        return None
    depicted = {
        image_id: frozenset(one.category for one in objects)
        for image_id, objects in instances.by_image.items()
    }
    return ObjectTruth(coco_words(), depicted, frequent=FREQUENT_WORDS["coco2017"])
