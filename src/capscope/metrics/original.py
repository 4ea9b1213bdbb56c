"""The scorers of pycocoevalcap 1.2, wrapped: slow, and the oracle of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from capscope.metrics.statistics import Measure, Scores


@dataclass(frozen=True)
class StatedMeasure(Measure):
    """A measure whose values were computed elsewhere; its sums serve for intervals."""

    stated: float = 0.0
    stated_per_image: Scores | None = None

    @property
    def value(self) -> float:
        """The score over all images, as stated."""
        return self.stated

    @property
    def per_image(self) -> Scores:
        """The score of each image, as stated."""
        return super().per_image if self.stated_per_image is None else self.stated_per_image


def with_original_values(
    measures: Mapping[str, Measure], references: Sequence[Sequence[str]], captions: Sequence[str]
) -> dict[str, Measure]:
    """Replace the values of BLEU, ROUGE-L and CIDEr by those of pycocoevalcap.

    Parameters
    ----------
    measures : mapping
        As `capscope.metrics.evaluate.CaptionScorer` returns them.
    references, captions
        Tokenised.
    """
    return dict(measures) | {
        name: StatedMeasure(
            measures[name].sums,
            measures[name].formula,
            measures[name].count,
            note=measures[name].note,
            stated=value,
            stated_per_image=per_image,
        )
        for name, (value, per_image) in original_scores(references, captions).items()
    }


def original_scores(
    references: Sequence[Sequence[str]], captions: Sequence[str]
) -> dict[str, tuple[float, Scores]]:
    """Score tokenised captions with pycocoevalcap: metric to (corpus score, score per image).

    CIDEr is left out where no reference has a word (pycocoevalcap raises ValueError there).
    """
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    theirs = {place: list(texts) for place, texts in enumerate(references)}
    ours = {place: [text] for place, text in enumerate(captions)}
    values, per_image = Bleu(4).compute_score(theirs, ours, verbose=0)
    scores = {
        f"BLEU-{order}": (float(value), np.asarray(each))
        for order, (value, each) in enumerate(zip(values, per_image, strict=True), start=1)
    }
    value, each = Rouge().compute_score(theirs, ours)
    scores["ROUGE-L"] = float(value), np.asarray(each)
    if any(text.split() for texts in references for text in texts):
        value, each = Cider().compute_score(theirs, ours)
        scores["CIDEr"] = float(value), np.asarray(each)
    return scores
