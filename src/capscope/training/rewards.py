"""What a drawn caption is worth: CIDEr-D and BLEU-4 against the references of its image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from capscope.metrics.bleu import bleu_of_sums, bleu_sums
from capscope.metrics.cider import CiderD
from capscope.metrics.frequencies import CorpusFrequencies
from capscope.metrics.words import References

Scores = NDArray[np.float64]
Reference = Sequence[int]


class CaptionReward:
    """Scores captions of training images, given as word ids.

    Parameters
    ----------
    references : sequence (one entry per image) of sequences of word ids
        Without start and end.
    start, end : int
        Word ids.
    cider_weight, bleu_weight : float
        Of CIDEr-D (0 to 10) and of BLEU-4 (0 to 1).
    frequencies : {"training", "captions", "batch"}
        N-gram frequencies of CIDEr-D. ``training``: over the images of `references`, counted once.
        ``captions``: as published by Wu et al. (2022), over the references, each of them a
        document of its own. ``batch``: as published by Sun et al. (2022), over the captions that
        are scored together, each of them one document with the references of its image.
    end_token : {"both", "references", "none"}
        Where the end counts as a word. ``both``: a caption that breaks off loses the n-grams that
        the end closes. ``references``: as published by Sun et al. ``none``: as in evaluation,
        which rewards captions that break off ("... on a").
    """

    def __init__(
        self,
        references: Sequence[Sequence[Reference]],
        *,
        start: int,
        end: int,
        cider_weight: float = 1.0,
        bleu_weight: float = 0.0,
        frequencies: str = "training",
        end_token: str = "both",
    ) -> None:
        self.start, self.end = start, end
        self.cider_weight, self.bleu_weight = cider_weight, bleu_weight
        self.end_token = end_token
        closing = [] if end_token == "none" else [end]
        self.references = [[[*words, *closing] for words in image] for image in references]
        self._scorer = None
        if frequencies == "training":
            self._scorer = CiderD(self.references)
        elif frequencies == "captions":
            documents = [[words] for image in self.references for words in image]
            corpus = CorpusFrequencies(References.of(documents), "training captions")
            self._scorer = CiderD(self.references, corpus)

    def score(self, captions: Sequence[Reference], images: Sequence[int]) -> Scores:
        """Score captions.

        Parameters
        ----------
        captions : sequence (M) of word ids
            As `roll_out` says them: the end among them if they ended, anything after it ignored.
        images : sequence (M) of int
            Place of each caption's image in `references`.

        Returns
        -------
        ndarray (M,)
        """
        places = np.asarray(images, np.int64)
        if self._scorer is None:
            scorer = CiderD([self.references[place] for place in places])
            places = np.arange(len(places))
        else:
            scorer = self._scorer
        found = scorer.ngrams.index.count([self._words(list(caption)) for caption in captions])
        scores = self.cider_weight * scorer.score_counts(found, places)
        if self.bleu_weight:
            bleu = bleu_of_sums(bleu_sums(scorer.ngrams, found, places))[:, -1]
            scores = scores + self.bleu_weight * bleu
        return scores

    def _words(self, caption: list[int]) -> list[int]:
        """Return the words of a caption, with its end where that counts; padding is no word."""
        ended = self.end in caption
        said = caption[: caption.index(self.end)] if ended else caption
        words = [word_id for word_id in said if word_id not in (0, self.start)]
        return [*words, self.end] if ended and self.end_token == "both" else words
