"""What the published latent-space program does on its command line, over one run.

``expl`` explains the captions of a split by latent LRP or a LIME variant; ``eval`` ranks the
features for each object of a caption and takes the published figures. With `parity` the orders and
the LRP are the published ones, errors included; by default they are right.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from capscope.benchmarks.latent_files import LatentFiles
from capscope.benchmarks.latent_published import (
    Ablation,
    AblationType,
    common_objects,
    compare_rank,
    random_positions,
    rank_score,
)
from capscope.data.annotations import Image
from capscope.decoding.beam import beam_search
from capscope.errors import CapscopeError
from capscope.explain.latent.masks import of_lists
from capscope.explain.latent.objects import Match, match_objects, named_finder
from capscope.explain.latent.perturbed import Perturbed
from capscope.explain.latent.published import (
    BEAM,
    STEPS,
    VARIANTS,
    fit_variant,
    order_of,
    variant,
    variant_masks,
)
from capscope.explain.latent.replacement import (
    MAXIMUM,
    SIGMA,
    Constant,
    RejectionNoise,
    Replacement,
    bounds_of,
)
from capscope.explain.subject import Subject
from capscope.features.store import FeatureStore
from capscope.features.visual import Features
from capscope.files import read_json, write_json
from capscope.models.gridtd import GridTD
from capscope.relevance.backward import word_relevance
from capscope.relevance.recursion_latent import latent_lrp
from capscope.relevance.rules import LRP

LRP_BEAM, LRP_LENGTH = 2, 50
METHODS = ("lrp", *VARIANTS)


@dataclass
class LatentProgram:
    """One run over one split.

    Attributes
    ----------
    subject : Subject
    store : FeatureStore
    images : sequence of Image
    files : LatentFiles
    seed : int
        Of masks, noise and the random baseline.
    parity : bool
        As published.
    """

    subject: Subject
    store: FeatureStore
    images: Sequence[Image]
    files: LatentFiles
    seed: int = 1
    parity: bool = False
    counts: dict[str, int] = field(default_factory=dict, init=False)

    # explanations

    def explain(self, method: str) -> None:
        """Explain every image that is not explained yet."""
        if method != "lrp":
            variant(method)
        captions = self.files.captions()
        explain = self._lrp if method == "lrp" else self._lime(method)
        with tqdm(total=len(self.images), desc=method, unit="image") as progress:
            for image in self.images:
                path = self.files.probabilities(method, _key(image))
                if not path.exists():
                    own = self.store.read([image.id])
                    if _key(image) not in captions:
                        captions[_key(image)] = self._caption(own)
                        self.files.write_captions(captions)
                    found = explain(image, own, captions[_key(image)].split())
                    if found is not None:
                        write_json(path, found, indent=None)
                progress.update()

    def _caption(self, own: Features) -> str:
        vocabulary = self.subject.vocabulary
        (found,) = beam_search(
            self.subject.captioner,
            own,
            start=self._word_map["<start>"],
            end=vocabulary.end,
            beam=LRP_BEAM,
            max_length=LRP_LENGTH,
            parity=self.parity,
        )
        said = found[0].word_ids if found[0].ended else found[0].word_ids[: STEPS - 1]
        return vocabulary.decode(said)

    def _lrp(self, image: Image, own: Features, words: Sequence[str]) -> list[list[float]]:
        if not words:
            return []
        ids = self.subject.inputs(torch.tensor([self.subject.vocabulary.encode(words)]))
        captioner = self.subject.captioner
        if self.parity:
            if not isinstance(captioner, GridTD):
                raise CapscopeError("the published latent LRP is for gridtd: leave --parity out")
            return latent_lrp(captioner, own.cells[0], ids[0]).scores().tolist()
        found: list[list[float]] = (
            word_relevance(captioner, own, ids, LRP).features[0].sum(-1).tolist()
        )
        return found

    def _lime(self, method: str) -> Any:
        chosen = VARIANTS[method]
        replace: Replacement = Constant(0.0)
        if chosen.magnitude == "15":
            low, high = self.bounds
            replace = RejectionNoise(SIGMA, low, high, np.random.RandomState(self.seed))

        def explain(image: Image, own: Features, words: Sequence[str]) -> dict[str, Any] | None:
            masks = self._masks(method, image, own)
            asked = sorted({word for word in words if word in self._word_map})
            if masks is None or not asked:
                return None
            found = Perturbed(self.subject.captioner, own, replace).search(
                masks,
                start=self._word_map["<start>"],
                end=self.subject.vocabulary.end,
                beam=BEAM,
                steps=STEPS,
                word_ids=[self._word_map[word] for word in asked],
            )
            columns = found.log_probs.double().T.tolist()
            return {
                "masks": [row.nonzero().flatten().tolist() for row in masks],
                "log_probs": dict(zip(asked, columns, strict=True)),
            }

        return explain

    def _masks(self, method: str, image: Image, own: Features) -> Tensor | None:
        count = own.cells.shape[1]
        if VARIANTS[method].masks == "drawn":
            lists = self.files.masks(method)
            if lists is None:
                drawn = variant_masks(method, count, seed=self.seed)
                assert drawn is not None
                lists = [row.nonzero().flatten().tolist() for row in drawn]
                self.files.write_masks(method, lists)
            return of_lists(lists, count)
        return variant_masks(method, count, self.classes.get(_key(image), []))

    # evaluation

    def correlate(self, method: str) -> dict[str, Any]:
        """Take the published "correlation"; write the orders that the ablation reads."""
        captions, orders, missing = self.files.captions(), {}, 0
        compared, source = [], random.Random(self.seed)
        self.counts = {"images": 0, "not explained": 0, "without classes": 0, "without objects": 0}
        for image in self.images:
            scores = None if method == "random" else self.files.read_scores(method, _key(image))
            if _key(image) not in self.classes:
                self.counts["without classes"] += 1
                continue
            if _key(image) not in captions or (scores is None and method != "random"):
                self.counts["not explained"] += 1
                continue
            matches = self._matches(captions[_key(image)], _key(image))
            common, gone = common_objects(matches)
            missing += gone
            self.counts["images"] += 1
            self.counts["without objects"] += not common
            found = []
            for match, order in self._orders(method, captions[_key(image)], common, scores, source):
                assert match.reference is not None
                compared.append(compare_rank(order, match.reference))
                found.append({match.name: order})
            orders[_key(image)] = found
        if method != "random":
            write_json(self.files.explanations(method), orders, indent=None)
        found_score = rank_score(compared, missing)
        return {
            "nb_common": found_score.common,
            "nb_missing": found_score.non_common,
            "avg_distance": found_score.distance,
            "score": found_score.score,
            **self.counts,
        }

    def _matches(self, caption: str, file: str) -> list[Match]:
        return match_objects(self._finder(caption), self.classes[file], self.class_names)

    def _orders(
        self,
        method: str,
        caption: str,
        common: Sequence[Match],
        scores: Any,
        source: random.Random,
    ) -> Iterator[tuple[Match, list[int]]]:
        """Yield the order of the features for each object of a caption."""
        if method == "random":
            count = self.feature_count
            for match in common:
                yield match, source.sample(range(count), count)
            return
        words = caption.split()
        if method == "lrp":
            rows = np.array(scores)
            for match in common:
                places = [words.index(part) for part in match.name.split()]
                order = np.argsort(-rows[places].mean(0), kind="stable")
                yield match, order.tolist()
            return
        masks = of_lists(scores["masks"], self.feature_count)
        usable = [m for m in common if all(w in scores["log_probs"] for w in m.name.split())]
        if not usable:
            return
        targets = [
            np.mean([scores["log_probs"][word] for word in match.name.split()], axis=0)
            for match in usable
        ]
        found = fit_variant(masks, np.stack(targets, 1))
        sign = "original" if self.parity else "corrected"
        for match, coefficients in zip(usable, found.coefficients, strict=True):
            yield match, order_of(coefficients, sign).tolist()  # type: ignore[arg-type]

    def ablate(self, method: str, kind: AblationType) -> dict[str, Any]:
        """Take the published figures of the ablation, objects of several words included."""
        given = self.files.read_orders("lrp" if method == "random" else method)
        source = random.Random(self.seed)
        low, high = self.bounds
        ablation = Ablation(
            self.subject.captioner,
            self._word_map,
            self._finder,
            kind,
            low,
            high,
            MAXIMUM,
            np.random.RandomState(self.seed),
            published=self.parity,
        )
        with tqdm(total=len(self.images), desc=f"{method} {kind}", unit="image") as progress:
            for image in self.images:
                classes = self.classes.get(_key(image), [])
                asked: list[tuple[str, list[int] | None]] = []
                for entry in given.get(_key(image), []):
                    ((name, order),) = entry.items()
                    if method == "random":
                        positions = random_positions(kind, self.feature_count, classes, source)
                    else:
                        positions = kind.positions(order, classes)
                    asked.append((name, positions))
                ablation.image(self.store.read([image.id]), asked)
                progress.update()
        figures = ablation.figures.to_json()
        if not ablation.figures.words:
            raise CapscopeError(
                f"no image has an explained object and enough features or objects for {kind}: an "
                f"image has at most {self.feature_count} features"
            )
        return figures

    # what the run and its files say

    @property
    def feature_count(self) -> int:
        """Visual features of an image, padding included."""
        return self.store.read([self.images[0].id]).cells.shape[1]

    @cached_property
    def classes(self) -> dict[str, list[int]]:
        """The class of each feature of an image, best first, by the image's file."""
        given = self.files.classes()
        if given is not None:
            return given
        if self.store.kind != "regions" or "class_names" not in self.store.attributes:
            raise CapscopeError(
                f"{self.store.path} knows no classes of its features: extract regions with a "
                f"detector, or give lime_probs/{self.files.dataset}/object_classes_scores_"
                f"{self.files.split}.json"
            )
        found = {}
        for image in self.images:
            class_ids = self.store.regions(image.id).class_ids
            found[_key(image)] = [] if class_ids is None else class_ids.tolist()
        return found

    @cached_property
    def class_names(self) -> list[str]:
        """Names of the detector's classes."""
        names: list[str] = list(self.store.attributes.get("class_names") or [])
        if not names:
            raise CapscopeError(f"{self.store.path} has no class_names: import them with it")
        return names

    @cached_property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """Bounds of each latent dimension, measured on the split unless the file is there."""
        path = self.files.lime / "bounds.json"
        if not path.exists():
            seen = self.store.read([image.id for image in self.images])
            with torch.no_grad():
                latent = self.subject.captioner.project(seen)
            pair = bounds_of(latent, None if self.parity else seen.valid)
            write_json(path, [one.tolist() for one in pair], indent=None)
        low, high = torch.tensor(read_json(path))
        return low, high

    @cached_property
    def _finder(self) -> Any:
        return named_finder(self.class_names)

    @cached_property
    def _word_map(self) -> dict[str, int]:
        vocabulary = self.subject.vocabulary
        found = {word: place for place, word in enumerate(vocabulary.words)}
        start = vocabulary.pad if vocabulary.start is None else vocabulary.start
        unk = vocabulary.pad if vocabulary.unk is None else vocabulary.unk
        special = {"start": start, "end": vocabulary.end, "unk": unk, "pad": vocabulary.pad}
        return found | {f"<{name}>": place for name, place in special.items()}


def _key(image: Image) -> str:
    """Return what the program's files call an image: its file's name without folders."""
    return PurePosixPath(image.file).name
