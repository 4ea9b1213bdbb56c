"""Correctness: how much of a word's relevance lies in the boxes of the category that it names?

Relevance is kept where it is positive and more than a threshold times the maximum; the score of a
box is the share of what is kept that lies in it, the score of a category the best of its boxes,
and the result the mean over all (image, category) pairs, for the thresholds 0, 0.1, ..., 0.9.

Source: Sun et al. (2022). As meant, every box is scored on the relevance as it is, colours are
summed with their sign, boxes cover parts of pixels, and words are matched as the words of a data
set are read. With `parity`, as published: colours lose their negative relevance one by one before
they are averaged, boxes are cut to whole pixels, words match by stripping letters
(`published.word_forms`), and thresholding changes the map itself, so that all boxes after the first
are scored on what is above 0.9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from capscope.benchmarks.context import Context, explained_captions
from capscope.benchmarks.depiction import WordReader, word_reader
from capscope.benchmarks.ground_truth import CONTROLS, maps_of
from capscope.benchmarks.measurement import Key, Measurement, Scores
from capscope.benchmarks.places import boxes_of, boxes_on
from capscope.benchmarks.published import word_forms
from capscope.data.annotations import INSTANCES_FILE
from capscope.data.entities import coco_entities, read_instances
from capscope.errors import CapscopeError

THRESHOLDS = tuple(step / 10 for step in range(10))
Entity = Mapping[str, Any]
"""What ``COCOvalEntities.json`` says of one file: categories, bbox, shape, resize_ratio."""


def entity_boxes(entity: Entity, category: str) -> Tensor:
    """Return the boxes (K, 4) of a category: x0, y0, x1, y1 as shares of width and height."""
    width, height = entity["shape"]
    boxes = torch.tensor(entity["bbox"][entity["categories"][category]], dtype=torch.float64)
    return boxes / torch.tensor([width, height, width, height], dtype=torch.float64)


def positive_relevance(maps: Tensor, *, negative: bool = False, parity: bool = False) -> Tensor:
    """Return the relevance for a word (or, if `negative`, against it), at most 1.

    Parameters
    ----------
    maps : Tensor (..., h, w) or (..., 3, h, w) with `parity`
        Signed relevance.
    negative : bool
        Look at negative relevance instead; "neg" in the published tables.
    parity : bool
        Clamp every colour before the mean over colours.
    """
    kept = (-maps if negative else maps).clamp(min=0)
    if parity:
        kept = kept.mean(-3)
    largest = kept.amax((-2, -1), keepdim=True)
    return kept / torch.where(largest > 0, largest, 1.0)


def box_scores(relevance: Tensor, covered: Tensor) -> Tensor:
    """Return the score of every box at every threshold.

    Parameters
    ----------
    relevance : Tensor (n, h, w)
        From `positive_relevance`.
    covered : Tensor (K, h, w)
        How much of each entry each box covers; see `places.boxes_on`.

    Returns
    -------
    Tensor (n, K, thresholds) in [0, 1]; 0 where nothing is above the threshold.
    """
    thresholds = torch.tensor(THRESHOLDS).to(relevance).view(1, -1, 1)
    kept = relevance.flatten(1).unsqueeze(1)
    kept = torch.where(kept > thresholds, kept, 0.0)
    inside = (kept @ covered.to(kept).flatten(1).T).transpose(1, 2)
    total = kept.sum(2).unsqueeze(1)
    return (inside / torch.where(total > 0, total, 1.0)).clamp(max=1)


def published_box_scores(relevance: Tensor, boxes: Sequence[Sequence[int]]) -> Tensor:
    """Return box scores (K, thresholds) as published: thresholding changes the map itself.

    Parameters
    ----------
    relevance : Tensor (h, w)
        From `positive_relevance`.
    boxes : sequence (K) of x0, y0, x1, y1
        Whole pixels, the end exclusive.
    """
    left = relevance.double().clone()
    scores = torch.zeros(len(boxes), len(THRESHOLDS), dtype=torch.float64)
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        for place, threshold in enumerate(THRESHOLDS):
            left[left <= threshold] = 0
            total = left.sum()
            if total > 0:
                scores[number, place] = (left[y0:y1, x0:x1].sum() / total).clamp(max=1)
    return scores


def published_correctness(
    maps: Tensor, words: Sequence[str], entity: Entity, *, negative: bool = False
) -> dict[str, Tensor]:
    """Return the scores (thresholds,) of all categories of an image that a caption names.

    Parameters
    ----------
    maps : Tensor (T, C, H, W) or (heads, T, C, H, W)
        Signed relevance of the words, in the frame that ``resize_ratio`` leads to; C is 3, or 1
        for maps without colours. Of several heads, each threshold takes the best.
    words : sequence (T) of str
    entity : Entity
        Of the image.
    negative : bool
        See `positive_relevance`.
    """
    found: dict[str, Tensor] = {}
    across, down = entity["resize_ratio"]
    by_word = (maps if maps.dim() == 5 else maps.unsqueeze(0)).transpose(0, 1)
    for word, heads in zip(words, by_word, strict=True):
        for category, category_id in entity["categories"].items():
            if not word_forms(word) & set(category.split()):
                continue
            boxes = [
                [int(x0 * across), int(y0 * down), int(x1 * across), int(y1 * down)]
                for x0, y0, x1, y1 in entity["bbox"][category_id]
            ]
            for one in heads:
                relevance = positive_relevance(one.double(), negative=negative, parity=True)
                best = published_box_scores(relevance, boxes).amax(0)
                found[category] = torch.maximum(found.get(category, best), best)
    return found


def benchmark(context: Context) -> list[Measurement]:
    """Measure the explanations of a run; see `measure_correctness`."""
    path = context.data_dir / INSTANCES_FILE
    if not path.exists():
        raise CapscopeError(
            f"{context.data_dir} holds no boxes: leave `correctness` out of benchmarks.measures, "
            "or set dataset.karpathy.instances"
        )
    return measure_correctness(context, word_reader(context.data_dir), path, **context.bootstrap)


def measure_correctness(
    context: Context, reader: WordReader, instances: Path, *, resamples: int, seed: int
) -> list[Measurement]:
    """Return the correctness of all explainers at all thresholds, as meant.

    Parameters
    ----------
    context : Context
    reader : WordReader
        Finds the categories that captions name.
    instances : Path
        COCO instances JSON; crowds are included, as in ``COCOvalEntities.json``.
    resamples, seed : int

    Returns
    -------
    list of Measurement
        ``correctness`` is the mean over thresholds, ``correctness 0.3`` that of one; ``negative``
        is ``correctness 0.0`` of relevance against the word, where there is any. ``n`` counts
        (image, category) pairs.
    """
    objects = read_instances(instances)
    files = {image_id: one.file_name for image_id, one in objects.pictures.items()}
    entities = coco_entities(objects)
    scores = Scores()
    for caption in explained_captions(context.stores, "correctness"):
        entity = entities.get(files.get(caption.image_id, ""))
        if entity is None:
            continue
        spoken = [context.vocabulary.words[word_id] for word_id in caption.word_ids]
        places = named_categories(reader, spoken, entity)
        first = next(iter(caption.by_explainer.values()))
        for name in [*caption.by_explainer, *CONTROLS]:
            stored = caption.by_explainer.get(name, first)
            for resolution, relevance in maps_of(name, stored, seed).items():
                key = partial(Key, name, resolution, "noun", caption.split)
                for category, positions in places.items():
                    chosen, regions = relevance[positions], boxes_of(stored, resolution)
                    covered = boxes_on(entity_boxes(entity, category), chosen.shape[1:], regions)
                    best = box_scores(positive_relevance(chosen), covered).amax((0, 1)).tolist()
                    scores.add(key("correctness"), caption.image_id, sum(best) / len(best))
                    for threshold, value in zip(THRESHOLDS, best, strict=True):
                        scores.add(key(f"correctness {threshold}"), caption.image_id, value)
                    if bool((chosen < 0).any()):
                        against = box_scores(positive_relevance(chosen, negative=True), covered)
                        value = float(against[..., 0].max())
                        scores.add(key("negative"), caption.image_id, value)
    return scores.measurements(resamples, seed)


def named_categories(
    reader: WordReader, words: Sequence[str], entity: Entity
) -> dict[str, list[int]]:
    """Return where a caption names the categories that an image has boxes of."""
    found: dict[str, list[int]] = {}
    for word in reader(words):
        if word.kind == "noun":
            for category in set(word.about) & set(entity["categories"]):
                found.setdefault(category, []).append(word.position)
    return found
