"""BERTScore (Zhang et al. 2020) by the library bert-score.

Its functions are used one by one: sentences are embedded once for all captioners, in portions, and
only sentences of one length share a batch, so that a score does not depend on its neighbours.
"""

from __future__ import annotations

import csv
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from capscope.errors import CapscopeError
from capscope.metrics.pretrained import device, load, provenance
from capscope.metrics.statistics import Measure, Scores, mean, ratio_of_sums
from capscope.metrics.task import Task
from capscope.params import expand_path

BEST = ("BERTScore-P", "BERTScore-R", "BERTScore")
PAIRS = "BERTScore-pairs"
IMAGES_AT_ONCE = 200
"""Images whose sentences are held in memory at a time."""
_LONGEST = 100_000  # tokenisers that name no longest input say about 1e30
_KEY = "metrics.bertscore_options"

Item = TypeVar("Item")
Pair = tuple[str, str]
Embedded = tuple[Tensor, Tensor, Tensor]


def names_of(aggregation: Sequence[str]) -> tuple[str, ...]:
    """Return the metrics of an aggregation, as `BertScore` takes it."""
    best = BEST if "best" in aggregation else ()
    return (*best, PAIRS) if "pairs" in aggregation else best


class BertScore:
    """Scores captions by the similarity of their tokens' contextual embeddings.

    Parameters
    ----------
    model : str
        Folder of an encoder and its tokeniser, or name on the hub.
    layers : int
        The embeddings are those after this layer; 17 for roberta-large.
    idf : bool
        Weight tokens by ln((M + 1) / (df + 1)) over the M references, instead of equally.
    rescale : str, optional
        Rescale scores so that chance is near 0: a model whose baseline bert-score holds, or the
        path of a table like its ``rescale_baseline/en/roberta-large.tsv``.
    aggregation : sequence of {"best", "pairs"}
        ``best``: of P, R and F the maximum over references, each on its own, as bert-score does.
        ``pairs``: the mean of F over all pairs of caption and reference.
    text : {"tokenized", "raw"}
        Score tokenised, lower-case text, or the text as it is.
    batch_size : int

    Raises
    ------
    UnavailableError
        The model is not there.
    CapscopeError
        The model has fewer layers, or there is no such baseline.
    """

    def __init__(
        self,
        model: str,
        *,
        layers: int,
        idf: bool = False,
        rescale: str | None = None,
        aggregation: Sequence[str] = ("best", "pairs"),
        text: str = "tokenized",
        batch_size: int = 64,
    ) -> None:
        self._baseline = torch.zeros(3) if rescale is None else _baseline(rescale, layers)
        self._device = device()
        self._tokenizer, self._model = _load(model, layers)
        self._model.to(self._device)
        self._idf = idf
        self._aggregation = aggregation
        self._text = text
        self._batch_size = batch_size
        self._note = ", ".join(
            [
                provenance(model, self._model, "bert-score", "transformers", "torch"),
                f"layer {layers}",
                "idf of the references" if idf else "no idf",
                f"rescaled by {rescale}" if rescale else "not rescaled",
                f"{text} text",
            ]
        )

    def measures(self, task: Task) -> list[dict[str, Measure]]:
        """Score every row of a task; idf is that of its references."""
        texts = task.raw if self._text == "raw" else task.tokenized
        count = len(texts.references)
        against = [task.against(texts, row) for row in range(len(texts.rows))]
        _warn_of_empty([text for row in texts.rows for text in row])
        weights = self._weights([text for image in texts.references for text in image])
        best = np.zeros((len(texts.rows), count, 3))
        sums = np.zeros((len(texts.rows), count, 2))
        with tqdm(total=count, desc="BERTScore", unit="image", delay=2) as progress:
            for start in range(0, count, IMAGES_AT_ONCE):
                images = range(start, min(start + IMAGES_AT_ONCE, count))
                places = [(row, image) for row in range(len(texts.rows)) for image in images]
                pairs = {
                    (row, image): [(texts.rows[row][image], text) for text in against[row][image]]
                    for row, image in places
                }
                scores = self._pairs([pair for some in pairs.values() for pair in some], weights)
                for place, some in pairs.items():
                    found = np.array([scores[pair] for pair in some])
                    best[place] = found.max(axis=0)
                    sums[place] = found[:, 2].sum(), len(found)
                progress.update(len(images))
        return [self._chosen(*row) for row in zip(best, sums, strict=True)]

    def pairs(self, pairs: Sequence[Pair]) -> Scores:
        """Return precision, recall and F, (N, 3), of pairs of caption and reference.

        Where either has no word, all three are 0 (before rescaling). idf is that of the references
        given.
        """
        scores = self._pairs(pairs, self._weights([reference for _, reference in pairs]))
        return np.array([scores[pair] for pair in pairs]).reshape(len(pairs), 3)

    def _chosen(self, best: Scores, sums: Scores) -> dict[str, Measure]:
        measures = {}
        if "best" in self._aggregation:
            for name, values in zip(BEST, best.T, strict=True):
                measures[name] = mean(values, self._note)
        if "pairs" in self._aggregation:
            count = int(sums[:, 1].sum())
            measures[PAIRS] = Measure(sums, ratio_of_sums, count, note=self._note)
        return measures

    def _weights(self, references: Sequence[str]) -> Mapping[int, float]:
        """Return the weight of every token."""
        if self._idf:
            from bert_score.utils import get_idf_dict

            full = [text for text in references if text.strip()]
            idf: Mapping[int, float] = get_idf_dict(full, self._tokenizer, nthreads=0)
            return idf
        equal: dict[int, float] = defaultdict(lambda: 1.0)
        equal[self._tokenizer.cls_token_id] = equal[self._tokenizer.sep_token_id] = 0.0
        return equal

    def _pairs(self, pairs: Sequence[Pair], weights: Mapping[int, float]) -> dict[Pair, Scores]:
        raw = {pair: torch.zeros(3) for pair in pairs}
        full = [pair for pair in raw if pair[0].strip() and pair[1].strip()]
        embedded = self._embed({text for pair in full for text in pair}, weights)

        def lengths(pair: Pair) -> tuple[int, ...]:
            return tuple(len(embedded[text][0]) for text in pair)

        for batch in _batches(full, lengths, self._batch_size):
            captions = _stack([embedded[caption] for caption, _ in batch])
            references = _stack([embedded[reference] for _, reference in batch])
            raw |= zip(batch, match(references, captions).nan_to_num(nan=0.0), strict=True)
        scores = {}
        for pair, values in raw.items():
            rescaled = (values - self._baseline) / (1 - self._baseline)
            scores[pair] = rescaled.double().numpy()
        return scores

    def _embed(self, sentences: Iterable[str], weights: Mapping[int, float]) -> dict[str, Embedded]:
        """Return embeddings (L, D), mask (L,) and weights (L,) of the tokens of each sentence."""
        from bert_score.utils import get_bert_embedding, sent_encode

        lengths = {text: len(sent_encode(self._tokenizer, text)) for text in sorted(sentences)}
        embedded: dict[str, Embedded] = {}
        for batch in _batches(list(lengths), lengths.__getitem__, self._batch_size):
            parts = get_bert_embedding(
                batch, self._model, self._tokenizer, weights, device=self._device
            )
            embedded |= zip(batch, zip(*parts, strict=True), strict=True)
        return embedded


def match(references: Embedded, captions: Embedded) -> Tensor:
    """Match every token greedily with the most similar one of the other side.

    Parameters
    ----------
    references, captions
        Embeddings (B, L, D), masks (B, L) and weights (B, L) of tokens; overwritten.

    Returns
    -------
    Tensor (B, 3)
        Precision, recall and F; NaN where a side's weights are all 0, but F is 0 there.
    """
    from bert_score.utils import greedy_cos_idf

    return torch.stack(greedy_cos_idf(*references, *captions), dim=-1).cpu()


def _load(name: str, layers: int) -> tuple[Any, nn.Module]:
    """Return the tokeniser, and the encoder up to a layer."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer, GPT2Tokenizer, RobertaTokenizer

    key = f"{_KEY}.model"
    config = load(AutoConfig.from_pretrained, name, key)
    if layers > config.num_hidden_layers:
        raise CapscopeError(
            f"{_KEY}.layers is {layers}, {name} has {config.num_hidden_layers} layers"
        )
    model = load(AutoModel.from_pretrained, name, key, num_hidden_layers=layers)
    tokenizer = load(AutoTokenizer.from_pretrained, name, key)
    if isinstance(tokenizer, GPT2Tokenizer | RobertaTokenizer):
        # bert-score asks for the blank with each sentence, which transformers 5 does not hear.
        tokenizer = load(AutoTokenizer.from_pretrained, name, key, add_prefix_space=True)
    if tokenizer.model_max_length > _LONGEST:
        tokenizer.model_max_length = config.max_position_embeddings
    if hasattr(model, "encoder") and hasattr(model, "decoder"):
        model = model.encoder
    return tokenizer, model.eval()


def _baseline(name: str, layers: int) -> Tensor:
    """Return what unrelated sentences score, (3,): P, R and F."""
    path = Path(str(resources.files("bert_score"))) / "rescale_baseline" / "en" / f"{name}.tsv"
    if not path.is_file():
        path = expand_path(name)
    if not path.is_file():
        raise CapscopeError(
            f"{_KEY}.rescale: bert-score holds no baseline of {name!r}, and it is no table"
        )
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        if int(row["LAYER"]) == layers:
            return torch.tensor([float(row[column]) for column in "PRF"])
    raise CapscopeError(f"{_KEY}.rescale: {path} has no layer {layers}")


def _warn_of_empty(captions: Sequence[str]) -> None:
    count = sum(not text.strip() for text in captions)
    if count:
        warnings.warn(f"BERTScore of {count} empty captions is set to 0", stacklevel=3)


def _batches(
    items: Sequence[Item], length: Callable[[Item], Any], size: int
) -> Iterator[list[Item]]:
    """Yield items of one length together, `size` at most."""
    for _, group in groupby(sorted(items, key=length), key=length):
        together = list(group)
        for start in range(0, len(together), size):
            yield together[start : start + size]


def _stack(parts: Sequence[Embedded]) -> Embedded:
    embeddings, masks, weights = map(torch.stack, zip(*parts, strict=True))
    return embeddings, masks, weights
