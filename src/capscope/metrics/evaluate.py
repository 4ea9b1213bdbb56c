"""BLEU, METEOR, ROUGE-L and CIDEr of captions against references."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from capscope.errors import CapscopeError
from capscope.metrics.bleu import bleu_of_sums, bleu_sums
from capscope.metrics.cider import CiderD
from capscope.metrics.frequencies import EVALUATED, Frequencies
from capscope.metrics.meteor import Meteor, meteor_of_sums, meteor_sums
from capscope.metrics.ngrams import ORDERS
from capscope.metrics.original import with_original_values
from capscope.metrics.results import Id, check_ids
from capscope.metrics.rouge import rouge_of_numbers, rouge_of_words
from capscope.metrics.statistics import Measure, Scores, average, mean
from capscope.metrics.tokenized import Tokenizer, regroup
from capscope.metrics.words import References, Words


class CaptionScorer:
    """Scores tokenised captions against fixed references, which are prepared once.

    Parameters
    ----------
    references : sequence (one entry per image) of sequences of str
        As `ptb_tokenize` returns them.
    meteor : Meteor, optional
        The process to align with; without it METEOR is left out.
    backend : {"fast", "reference"}
        ``reference``: BLEU, ROUGE-L and CIDEr by pycocoevalcap (slower, the same numbers).
    frequencies : Frequencies, optional
        Document frequencies of CIDEr; by default those of `references`.

    Raises
    ------
    CapscopeError
        Other frequencies are asked of the backend ``reference``, which knows none.
    """

    def __init__(
        self,
        references: Sequence[Sequence[str]],
        meteor: Meteor | None = None,
        backend: str = "fast",
        frequencies: Frequencies | None = None,
    ) -> None:
        if backend == "reference" and frequencies is not None:
            raise CapscopeError(
                "pycocoevalcap counts document frequencies in the evaluated references only: set "
                "metrics.frequencies to references, or metrics.backend to fast"
            )
        self._texts = references
        self._meteor = meteor
        self._original = backend == "reference"
        words, fields = Words.split([text for image in references for text in image])
        per_image = np.fromiter(map(len, references), np.int64, len(references))
        self._references = References(words, per_image)
        self._fields = References(fields, per_image)
        self._cider = CiderD(self._references, frequencies)
        self._source = frequencies.source if frequencies else EVALUATED

    def measures(self, captions: Sequence[str]) -> dict[str, Measure]:
        """Score one tokenised caption an image, in the order of the references."""
        image = np.arange(len(self._texts))
        ngrams = self._cider.ngrams
        words, fields = Words.split(captions)
        numbers = ngrams.index.number(words)
        found = ngrams.index.count_numbers(words, numbers)
        counts = bleu_sums(ngrams, found, image)
        measures = {
            f"BLEU-{order + 1}": Measure(counts, _BleuOrder(order), len(image))
            for order in range(ORDERS)
        }
        if self._meteor is not None:
            statistics = self._meteor.statistics(self._texts, captions)
            measures["METEOR"] = Measure(meteor_sums(statistics), meteor_of_sums, len(image))
        if fields is words and self._fields.words is self._references.words:
            rouge = rouge_of_numbers(self._references, ngrams.words, words.lengths, numbers)
        else:
            rouge = rouge_of_words(self._fields, fields)
        measures["ROUGE-L"] = mean(rouge)
        measures["CIDEr"] = mean(self._cider.score_counts(found, image), self._source)
        if self._original:
            return with_original_values(measures, self._texts, captions)
        return measures


@dataclass(frozen=True)
class _BleuOrder:
    """BLEU-(order + 1) as a formula of sums."""

    order: int

    def __call__(self, sums: Scores) -> Scores:
        scores: Scores = bleu_of_sums(sums)[..., self.order]
        return scores


def evaluate_captions(
    references: Mapping[Id, Sequence[str]],
    candidates: Mapping[Id, str],
    *,
    meteor: bool = True,
    parity: bool = False,
    backend: str = "fast",
    tokenizer: str = "java",
    frequencies: Frequencies | None = None,
    timeout: float = 300.0,
    cache: Path | None = None,
) -> dict[str, Measure]:
    """Score captions against references: raw text in, measures out.

    Parameters
    ----------
    references : mapping of image id to sequence of str
    candidates : mapping of image id to str
        Of the same images.
    meteor : bool
        Score METEOR, too; its process takes 5 to 20 s to start.
    parity : bool
        Tokenise as the published evaluation does, where the tokens of a caption can depend on
        the next one (see `ptb_tokenize`).
    backend : {"fast", "reference"}
        Own scorers, or those of pycocoevalcap.
    tokenizer : {"java", "python"}
        CoreNLP's jar, or its twin `treebank_tokenize`.
    frequencies : Frequencies, optional
        Document frequencies of CIDEr, such as `read_frequencies` returns; by default those of
        `references`.
    timeout : float
        Seconds to wait for the tokeniser, and for each answer of METEOR.
    cache : Path, optional
        Folder that keeps tokens and alignments for the next time.

    Returns
    -------
    dict of str to Measure
        ``BLEU-1`` .. ``BLEU-4``, ``METEOR``, ``ROUGE-L``, ``CIDEr``, each with ``value`` and
        ``per_image`` in the order of `references`.

    Raises
    ------
    CapscopeError
        Ids that do not match, images without references, captions that are not text.

    Examples
    --------
    >>> from capscope.metrics import evaluate_captions
    >>> measures = evaluate_captions({7: ["A dog runs."]}, {7: "a dog"}, meteor=False)
    >>> measures["ROUGE-L"].value
    0.7721518987341772
    """
    check_ids(references, candidates, "evaluate_captions")
    for image_id, texts in references.items():
        _check_texts(image_id, texts, candidates[image_id])
    if not references:
        raise CapscopeError("there is nothing to evaluate: no references")
    with ExitStack() as stack:
        process = None
        if meteor:
            process = stack.enter_context(Meteor(timeout=timeout, cache=cache))
        groups = list(references.values())
        files = [[text for group in groups for text in group]]
        files.append([candidates[image_id] for image_id in references])
        split = Tokenizer(tokenizer, parity, timeout, cache)
        theirs, ours = split.files(files, process.start if process else None)
        scorer = CaptionScorer(regroup(theirs, groups), process, backend, frequencies)
        return scorer.measures(ours)


def _check_texts(image_id: int | str, references: object, candidate: object) -> None:
    if not isinstance(references, list | tuple) or not references:
        raise CapscopeError(f"image {image_id} needs a list with at least one reference")
    if not all(isinstance(text, str) for text in (*references, candidate)):
        raise CapscopeError(f"image {image_id}: captions and references must be strings")


def leave_one_out(
    references: Sequence[Sequence[str]],
    scorer: Callable[[Sequence[Sequence[str]]], CaptionScorer] = CaptionScorer,
) -> dict[str, Measure] | None:
    """Score what humans say: each tokenised reference against the others of its image.

    One round per reference, up to the smallest number that an image has; the measures are means
    over rounds. None if some image has a single reference.

    Parameters
    ----------
    references : sequence (one entry per image) of sequences of str
    scorer : callable
        Makes the scorer of other references.
    """
    rounds = min(map(len, references), default=0)
    if rounds < 2:
        return None
    scored = []
    for chosen in range(rounds):
        others = [[*image[:chosen], *image[chosen + 1 :]] for image in references]
        scored.append(scorer(others).measures([image[chosen] for image in references]))
    return {name: average([measures[name] for measures in scored]) for name in scored[0]}
