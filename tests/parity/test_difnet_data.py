"""Words, rewards and losses of DIFNet's program: its toy data set."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch
from difnet_captioners import FOLDER, load

from capscope.decoding.methods import collapsed
from capscope.importers.difnet_vocabulary import published_vocabulary
from capscope.metrics.cider import CiderD
from capscope.metrics.frequencies import DocumentFrequencies
from capscope.metrics.ngrams import ORDERS
from capscope.metrics.treebank import treebank_tokenize
from capscope.training.objectives import self_critical_loss


def case() -> dict:  # type: ignore[type-arg]
    path = FOLDER / "data_case.json"
    if not path.exists():
        pytest.skip(f"fixture {path} is not here (CAPSCOPE_GOLDEN names another folder)")
    found: dict = json.loads(path.read_text("utf-8"))  # type: ignore[type-arg]
    return found


def test_the_vocabulary_is_the_originals() -> None:
    found = case()
    minimum = load("data_case.npz").meta["min_freq"]
    vocabulary = published_vocabulary(Counter(found["freqs"]), minimum)
    assert list(vocabulary.words) == found["itos"]
    special = (vocabulary.unk, vocabulary.pad, vocabulary.start, vocabulary.end)
    assert [vocabulary.words[one] for one in special if one is not None] == [
        "<unk>",
        "<pad>",
        "<bos>",
        "<eos>",
    ]


def test_repeated_words_are_collapsed_as_in_the_originals_evaluation() -> None:
    found = case()
    for words, expected in zip(found["decode_tokens"], found["decode_collapsed"], strict=True):
        kept = collapsed(range(len(words)), words)
        assert " ".join(words[i] for i in kept) == expected


def test_decoding_stops_at_the_first_end() -> None:
    found, golden = case(), load("data_case.npz")
    for row, words in zip(golden["decode/ids"].tolist(), found["decode_tokens"], strict=True):
        end = found["itos"].index("<eos>")
        said = row[: row.index(end)] if end in row else row
        assert [found["itos"][i] for i in said] == words


def test_rewards_are_the_originals_with_every_training_caption_as_a_document() -> None:
    found, golden = case(), load("data_case.npz")

    def tokens(captions: list[str]) -> list[list[str]]:
        return [caption.split() for caption in treebank_tokenize(captions)]

    documents = tokens(found["cider_refs_train"])
    counts: Counter[tuple[str, ...]] = Counter()
    for words in documents:
        counts.update(
            {tuple(words[i : i + n + 1]) for n in range(ORDERS) for i in range(len(words) - n)}
        )
    assert len(counts) == found["cider_df_size"]
    for ngram, count in found["cider_df_sample"]:
        assert counts[tuple(ngram.split(" "))] == count
    assert np.log(len(documents)) == pytest.approx(found["cider_ref_len_log"])
    frequencies = DocumentFrequencies(counts, len(documents), "every caption")
    scorer = CiderD([tokens(one) for one in found["scst_gts"]], frequencies)
    scores = scorer.score(tokens(found["scst_gens"]), np.arange(len(found["scst_gens"])))
    expected = golden["scst/reward"]
    np.testing.assert_allclose(np.asarray(scores).reshape(expected.shape), expected, rtol=1e-6)
    torch.testing.assert_close(expected.mean(1, keepdim=True), golden["scst/baseline"])


def test_the_loss_is_the_originals() -> None:
    golden = load("data_case.npz")
    log_probs = golden["scst/log_probs"].flatten(0, 1)
    advantage = (golden["scst/reward"] - golden["scst/baseline"]).flatten()
    ids = torch.ones_like(log_probs, dtype=torch.long)
    loss = self_critical_loss(log_probs, ids, advantage, end=3, per="position")
    torch.testing.assert_close(loss, golden["scst/loss"], rtol=1e-5, atol=1e-7)
    each = -log_probs.mean(1) * advantage
    torch.testing.assert_close(each, golden["scst/loss_per_beam"].flatten(), rtol=1e-5, atol=1e-7)
