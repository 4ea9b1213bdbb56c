"""BLEU, METEOR, ROUGE-L and CIDEr of captions against references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from capscope.errors import CapscopeError
from capscope.metrics.bleu import bleu_of_sums, bleu_sums
from capscope.metrics.cider import CiderD
from capscope.metrics.frequencies import EVALUATED
from capscope.metrics.meteor import Meteor, meteor_of_sums, meteor_sums
from capscope.metrics.ngrams import ORDERS
from capscope.metrics.original import with_original_values
from capscope.metrics.results import Id, check_ids
from capscope.metrics.rouge import rouge_of_numbers, rouge_of_words
from capscope.metrics.statistics import Measure, Scores, average, mean
from capscope.metrics.tokenizer import ptb_tokenize
from capscope.metrics.treebank import treebank_tokenize
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
    """

    def __init__(
        self,
        references: Sequence[Sequence[str]],
        meteor: Meteor | None = None,
        backend: str = "fast",
    ) -> None:
        self._texts = references
        self._meteor = meteor
        self._original = backend == "reference"
        words, fields = Words.split([text for image in references for text in image])
        per_image = np.fromiter(map(len, references), np.int64, len(references))
        self._references = References(words, per_image)
        self._fields = References(fields, per_image)
        self._cider = CiderD(self._references)

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
        measures["CIDEr"] = mean(self._cider.score_counts(found, image), EVALUATED)
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


def evaluate(
    references: Mapping[Id, Sequence[str]],
    candidates: Mapping[Id, str],
    *,
    meteor: bool = True,
    parity: bool = False,
    backend: str = "fast",
    tokenizer: str = "java",
    timeout: float = 300.0,
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
    timeout : float
        Seconds to wait for the tokeniser, and for each answer of METEOR.

    Returns
    -------
    dict of str to Measure
        ``BLEU-1`` .. ``BLEU-4``, ``METEOR``, ``ROUGE-L``, ``CIDEr``, each with ``value`` and
        ``per_image`` in the order of `references`.

    Raises
    ------
    CapscopeError
        Ids that do not match, images without references, captions that are not text.
    """
    check_ids(references, candidates, "evaluate")
    for image_id, texts in references.items():
        _check_texts(image_id, texts, candidates[image_id])
    if not references:
        raise CapscopeError("there is nothing to evaluate: no references")
    with ExitStack() as stack:
        process = stack.enter_context(Meteor(timeout=timeout)) if meteor else None
        if process is not None:
            process.start()
        groups = list(references.values())
        files = [[text for group in groups for text in group]]
        files.append([candidates[image_id] for image_id in references])
        theirs, ours = tokenize_files(files, tokenizer, parity=parity, timeout=timeout)
        return CaptionScorer(regroup(theirs, groups), process, backend).measures(ours)


def _check_texts(image_id: int | str, references: object, candidate: object) -> None:
    if not isinstance(references, list | tuple) or not references:
        raise CapscopeError(f"image {image_id} needs a list with at least one reference")
    if not all(isinstance(text, str) for text in (*references, candidate)):
        raise CapscopeError(f"image {image_id}: captions and references must be strings")


def tokenize_files(
    files: Sequence[Sequence[str]],
    tokenizer: str = "java",
    *,
    parity: bool = False,
    timeout: float = 300.0,
) -> list[list[str]]:
    """Tokenise lists of captions: in one go, or for `parity` each list as a file of its own."""
    if tokenizer == "python":
        return [treebank_tokenize(file, parity=parity) for file in files]
    if parity:
        return [ptb_tokenize(file, parity=True, timeout=timeout) for file in files]
    return regroup(ptb_tokenize([text for file in files for text in file], timeout=timeout), files)


def regroup(texts: Sequence[str], groups: Sequence[Sequence[str]]) -> list[list[str]]:
    """Cut a row of texts into lists as long as `groups`."""
    ends = np.cumsum([0, *map(len, groups)]).tolist()
    return [list(texts[start:stop]) for start, stop in pairwise(ends)]


def leave_one_out(
    references: Sequence[Sequence[str]], meteor: Meteor | None = None, backend: str = "fast"
) -> dict[str, Measure] | None:
    """Score what humans say: each tokenised reference against the others of its image.

    One round per reference, up to the smallest number that an image has; the measures are means
    over rounds. None if some image has a single reference.
    """
    rounds = min(map(len, references), default=0)
    if rounds < 2:
        return None
    scored = []
    for chosen in range(rounds):
        others = [[*image[:chosen], *image[chosen + 1 :]] for image in references]
        scorer = CaptionScorer(others, meteor, backend)
        scored.append(scorer.measures([image[chosen] for image in references]))
    return {name: average([measures[name] for measures in scored]) for name in scored[0]}
