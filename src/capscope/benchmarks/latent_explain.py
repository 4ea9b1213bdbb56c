"""What ``capscope latent --mode expl`` does: latent LRP or a LIME variant over a split.

With `parity` the LRP is the published one, errors included; by default it is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from capscope.benchmarks.latent_run import LatentRun, key_of
from capscope.data.annotations import Image
from capscope.decoding.beam import beam_search
from capscope.errors import CapscopeError
from capscope.explain.latent.masks import of_lists
from capscope.explain.latent.perturbed import Perturbed
from capscope.explain.latent.published import BEAM, STEPS, VARIANTS, variant, variant_masks
from capscope.explain.latent.replacement import (
    SIGMA,
    BoundedNoise,
    Constant,
    RejectionNoise,
    Replacement,
)
from capscope.features.visual import Features
from capscope.files import write_json
from capscope.models.gridtd import GridTD
from capscope.relevance.backward import word_relevance
from capscope.relevance.recursion_latent import latent_lrp
from capscope.relevance.rules import LRP

LRP_BEAM, LRP_LENGTH = 2, 50


class LatentExplanations(LatentRun):
    """Captions and explanations, written to the program's files."""

    def caption(self) -> None:
        """Caption every image that has no caption yet."""
        captions = self.files.captions()
        for image in tqdm(self.images, desc="captions", unit="image"):
            if key_of(image) not in captions:
                captions[key_of(image)] = self._caption(self.store.read([image.id]))
        self.files.write_captions(captions)

    def explain(self, method: str) -> None:
        """Explain every image that is not explained yet."""
        if method != "lrp":
            variant(method)
        self.caption()
        captions = self.files.captions()
        explain = self._lrp if method == "lrp" else self._lime(method)
        explained = 0
        for image in tqdm(self.images, desc=method, unit="image"):
            path = self.files.probabilities(method, key_of(image))
            if not path.exists():
                own = self.store.read([image.id])
                found = explain(image, own, captions[key_of(image)].split())
                if found is None:
                    continue
                write_json(path, found, indent=None)
            explained += 1
        if not explained:
            raise CapscopeError(
                f"{method} explains none of {len(self.images)} images: each has fewer different "
                "objects than the variant perturbs, or a caption without a known word; take "
                "lime_5obj, or a variant over single features"
            )

    def _caption(self, own: Features) -> str:
        vocabulary = self.subject.vocabulary
        (found,) = beam_search(
            self.subject.captioner,
            own,
            start=self.word_map["<start>"],
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
            replace = BoundedNoise(SIGMA, low, high, self.seed)
            if self.parity:
                replace = RejectionNoise(SIGMA, low, high, np.random.RandomState(self.seed))

        def explain(image: Image, own: Features, words: Sequence[str]) -> dict[str, Any] | None:
            masks = self._masks(method, image, own)
            asked = sorted({word for word in words if word in self.word_map})
            if masks is None or not asked:
                return None
            found = Perturbed(self.subject.captioner, own, replace).search(
                masks,
                start=self.word_map["<start>"],
                end=self.subject.vocabulary.end,
                beam=BEAM,
                steps=STEPS,
                word_ids=[self.word_map[word] for word in asked],
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
        class_ids = self.classes.get(key_of(image), [])
        return variant_masks(method, count, class_ids, surest=not self.parity)
