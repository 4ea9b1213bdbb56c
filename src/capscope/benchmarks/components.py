"""Which component of a captioner do its captions depend on? Noise in one after the other.

After S. Elguendouze et al., IJCNN 2022; see `capscope.explain.latent.components`. Captions under
noise are scored against the references, and against the caption without noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from capscope.benchmarks.context import Context
from capscope.benchmarks.measurement import ImageSums, Key, Measurement, resampled
from capscope.decoding.captions import caption_split
from capscope.errors import CapscopeError
from capscope.explain.latent.components import (
    PUBLISHED,
    Noise,
    NoisyCaptioner,
    Range,
    components_of,
    ranges_of,
)
from capscope.features.store import FeatureStore
from capscope.metrics.cache import placed
from capscope.metrics.evaluate import CaptionScorer
from capscope.metrics.meteor import Meteor
from capscope.metrics.statistics import Measure, mean, percentiles
from capscope.metrics.tokenized import Tokenizer, regroup
from capscope.models.captioner import Captioner

INTACT = "captioner"
"""Explainer of the rows without noise."""
MEANS = ("CIDEr", "same CIDEr")
"""Scores that are means over images, which paired tests can compare."""


def benchmark(context: Context) -> list[Measurement]:
    """Measure the captioner of a run; see `measure_components`."""
    return measure_components(context, context.settings["components"], **context.bootstrap)


def measure_components(
    context: Context, settings: Mapping[str, Any], *, resamples: int, seed: int
) -> list[Measurement]:
    """Return scores of captions under noise.

    Parameters
    ----------
    context : Context
    settings : mapping
        ``images``: of each split. ``components``: keys of `COMPONENTS`; those that the captioner
        lacks are left out. ``sigmas``: in standard deviations of the component. ``steps``: those
        that are noised, null for all. ``published``: coco or flickr30k has the bounds of the
        published program (but of VF), absolute sigmas, and noise in the first half of CT only; null
        measures bounds on the explained images. ``meteor``: score it.

    Returns
    -------
    list of Measurement
        ``explainer`` is the component, or ``captioner`` without noise. ``CIDEr sigma 1``: against
        the references; ``same CIDEr sigma 1``: against the caption without noise. So are BLEU-1 to
        BLEU-4, METEOR and ROUGE-L; ``changed sigma 1``: share of captions
        that are not the same.
    """
    subject = context.subject
    components = components_of(subject.captioner, settings["components"])
    rows: list[Measurement] = []
    for split in dict.fromkeys(store.split for store in context.stores):
        store = next(one for one in context.stores if one.split == split)
        ids = store.image_ids[: settings["images"]].tolist()
        with ExitStack() as stack:
            scorers = _Scorers(context, ids, settings["meteor"], stack)
            intact = _captions(context, subject.captioner, ids)
            ranges = _ranges(context, intact, ids, components)
            key = Key(INTACT, "grid", "caption", split, "")
            rows += _rows(key, scorers.references(intact), "", ids, resamples, seed)
            cases = [(one, sigma) for sigma in settings["sigmas"] for one in components]
            for component, sigma in tqdm(cases, desc="components", unit="noise"):
                noise = _noise(component, sigma, ranges[component], settings, seed)
                noisy = NoisyCaptioner(subject.captioner, component, noise, settings["steps"])
                found = _captions(context, noisy, ids)
                own = key._replace(explainer=component)
                label = f" sigma {sigma:g}"
                rows += _rows(own, scorers.references(found), label, ids, resamples, seed)
                same = scorers.same(found, intact)
                rows += _rows(own, same, label, ids, resamples, seed)
    return rows


def _captions(context: Context, captioner: Captioner, ids: Sequence[int]) -> list[str]:
    """Caption images as the run's captions were, the best caption of each."""
    captioner.eval()
    settings = {"batch_size": 32, **context.params["decoding"]}
    store: FeatureStore = context.features
    found = caption_split(captioner, store, ids, context.vocabulary, settings)
    return [context.vocabulary.decode(hypotheses[0].word_ids) for _, hypotheses in found]


def _ranges(
    context: Context, captions: Sequence[str], ids: Sequence[int], components: Sequence[str]
) -> Mapping[str, Range]:
    encoded = [context.vocabulary.encode(caption.split()) for caption in captions]
    longest = max(map(len, encoded))
    if not longest:
        raise CapscopeError(
            f"{context.run_dir} says nothing about any image, so noise can change nothing: train "
            "it for longer, or leave the benchmark components out"
        )
    padded = [[*row, *[context.vocabulary.pad] * (longest - len(row))] for row in encoded]
    inputs = context.subject.inputs(torch.tensor(padded))
    return ranges_of(context.subject.captioner, context.features.read(ids), inputs, components)


def _noise(
    component: str, sigma: float, measured: Range, settings: Mapping[str, Any], seed: int
) -> Noise:
    published = settings["published"]
    if published is None:
        return Noise(sigma * measured.deviation, measured.low, measured.high, seed)
    low, high, dimensions = measured.low, measured.high, None
    if component in PUBLISHED[published]:
        low, high = (torch.full_like(low, bound) for bound in PUBLISHED[published][component])
    if component == "CT":
        dimensions = len(low) // 2
    return Noise(sigma, low, high, seed, dimensions)


class _Scorers:
    """Scores captions of some images against references or other captions."""

    def __init__(
        self, context: Context, ids: Sequence[int], meteor: bool, stack: ExitStack
    ) -> None:
        settings = context.params["metrics"]
        self._meteor: Meteor | None = None
        if meteor and settings["meteor"]:
            cache = placed(settings["cache"]) if settings["cache"] else None
            process = Meteor(timeout=settings["timeout"], cache=cache)
            self._meteor = stack.enter_context(process)
        self._tokenizer = Tokenizer("python")
        groups = [list(context.dataset.by_id(image_id).references) for image_id in ids]
        (texts,) = self._tokenizer.files([[text for group in groups for text in group]])
        self._against = CaptionScorer(regroup(texts, groups), self._meteor)

    def references(self, captions: Sequence[str]) -> dict[str, Measure]:
        """Score against the references."""
        (ours,) = self._tokenizer.files([captions])
        return self._against.measures(ours)

    def same(self, captions: Sequence[str], intact: Sequence[str]) -> dict[str, Measure]:
        """Score against the captions without noise."""
        ours, theirs = self._tokenizer.files([captions, intact])
        found = CaptionScorer([[text] for text in theirs], self._meteor).measures(ours)
        changed = mean(np.array([a != b for a, b in zip(captions, intact, strict=True)], float))
        return {**{f"same {name}": one for name, one in found.items()}, "changed": changed}


def _rows(
    key: Key,
    measures: Mapping[str, Measure],
    label: str,
    ids: Sequence[int],
    resamples: int,
    seed: int,
) -> Iterator[Measurement]:
    drawn = resampled(len(ids), resamples, seed)
    for name, measure in measures.items():
        low, high = percentiles(measure.formula(drawn @ measure.sums))
        images = None
        if name in MEANS:
            images = {
                image_id: ImageSums(float(value), 1.0, 1)
                for image_id, value in zip(ids, measure.per_image, strict=True)
            }
        named = key._replace(measure=name + label)
        yield Measurement(*named, measure.value, low, high, len(ids), images)
