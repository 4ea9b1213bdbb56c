"""What ``capscope latent --mode eval`` does: the published "correlation" and ablation.

With `parity` the orders are the published ones, errors included; by default they are right.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from capscope.benchmarks.latent_published import (
    Ablation,
    AblationType,
    common_objects,
    compare_rank,
    random_positions,
    rank_score,
)
from capscope.benchmarks.latent_run import LatentRun, key_of
from capscope.errors import CapscopeError
from capscope.explain.latent.masks import of_lists
from capscope.explain.latent.objects import Match, match_objects
from capscope.explain.latent.published import fit_variant, order_of
from capscope.explain.latent.replacement import MAXIMUM
from capscope.files import write_json


class LatentEvaluation(LatentRun):
    """The published figures of explanations, read from the program's files."""

    def correlate(self, method: str) -> dict[str, Any]:
        """Take the published "correlation"; write the orders that the ablation reads."""
        captions, orders, missing = self.files.captions(), {}, 0
        compared, source = [], random.Random(self.seed)
        counts = {"images": 0, "not explained": 0, "without classes": 0, "without objects": 0}
        for image in self.images:
            scores = None if method == "random" else self.files.read_scores(method, key_of(image))
            if key_of(image) not in self.classes:
                counts["without classes"] += 1
                continue
            if key_of(image) not in captions or (scores is None and method != "random"):
                counts["not explained"] += 1
                continue
            matches = self._matches(captions[key_of(image)], key_of(image))
            common, gone = common_objects(matches)
            missing += gone
            counts["images"] += 1
            counts["without objects"] += not common
            found = []
            caption = captions[key_of(image)]
            for match, order in self._orders(method, caption, common, scores, source):
                assert match.reference is not None
                compared.append(compare_rank(order, match.reference))
                found.append({match.name: order})
            orders[key_of(image)] = found
        if method != "random":
            write_json(self.files.explanations(method), orders, indent=None)
        if not compared:
            raise CapscopeError(
                f"{method}: no caption names an object that was detected in its image: of "
                f"{len(self.images)} images {counts['without classes']} have no classes, "
                f"{counts['not explained']} no explanation, and of the others' captions "
                f"{counts['without objects']} name none ({missing} objects not detected)"
            )
        found_score = rank_score(compared, missing)
        return {
            "nb_common": found_score.common,
            "nb_missing": found_score.non_common,
            "avg_distance": found_score.distance,
            "score": found_score.score,
            **counts,
        }

    def _matches(self, caption: str, file: str) -> list[Match]:
        return match_objects(self.finder(caption), self.classes[file], self.class_names)

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
            for match, places in zip(common, self._places(words, common), strict=True):
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

    def _places(self, words: list[str], common: Sequence[Match]) -> Iterator[list[int]]:
        """Yield where in a caption each object is named; as published, always the first time."""
        place = 0
        for match in common:
            parts = match.name.split()
            if self.parity:
                yield [words.index(part) for part in parts]
                continue
            while words[place : place + len(parts)] != parts:
                place += 1
            yield list(range(place, place + len(parts)))
            place += len(parts)

    def ablate(self, method: str, kind: AblationType) -> dict[str, Any]:
        """Take the published figures of the ablation, objects of several words included."""
        given = self._given(method)
        source = random.Random(self.seed)
        low, high = self.bounds
        ablation = Ablation(
            self.subject.captioner,
            self.word_map,
            self.finder,
            kind,
            low,
            high,
            MAXIMUM if self.parity else float(high.max()),
            np.random.RandomState(self.seed),
            published=self.parity,
        )
        with tqdm(total=len(self.images), desc=f"{method} {kind}", unit="image") as progress:
            for image in self.images:
                classes = self.classes.get(key_of(image), [])
                asked: list[tuple[str, list[int] | None]] = []
                for entry in given.get(key_of(image), []):
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

    def _given(self, method: str) -> dict[str, list[dict[str, list[int]]]]:
        """Return the orders of the features for the objects of each image.

        Of random, the objects alone; as published, of images that LRP has explained.
        """
        if method != "random" or self.parity:
            return self.files.read_orders("lrp" if method == "random" else method)
        captions = self.files.captions()
        found: dict[str, list[dict[str, list[int]]]] = {}
        for key in map(key_of, self.images):
            if key in captions and key in self.classes:
                common, _ = common_objects(self._matches(captions[key], key))
                found[key] = [{match.name: []} for match in common]
        return found
