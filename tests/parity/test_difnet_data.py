"""Words, rewards and losses of DIFNet's program: its toy data set."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from difnet_captioners import FOLDER, load

from capscope.decoding.methods import collapsed
from capscope.files import write_json
from capscope.importers.difnet_annotations import published_tokens, read_annotations, spacy_rules
from capscope.importers.difnet_vocabulary import by_count, published
from capscope.metrics.bleu import bleu
from capscope.metrics.cider import CiderD, cider_d
from capscope.metrics.frequencies import DocumentFrequencies
from capscope.metrics.meteor import Meteor, meteor_scores
from capscope.metrics.ngrams import ORDERS
from capscope.metrics.rouge import rouge_l
from capscope.metrics.treebank import treebank_tokenize
from capscope.training.objectives import self_critical_loss


def case() -> dict:  # type: ignore[type-arg]
    path = FOLDER / "data_case.json"
    if not path.exists():
        pytest.skip(f"fixture {path} is not here (CAPSCOPE_GOLDEN names another folder)")
    found: dict = json.loads(path.read_text("utf-8"))  # type: ignore[type-arg]
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write the annotations as the original reads them."""
    found = case()
    for part, content in found["annotations"].items():
        write_json(tmp_path / f"captions_{part}.json", content)
    for name, ids in found["ids"].items():
        np.save(tmp_path / f"{name}.npy", np.array(ids))
    return tmp_path


def test_examples_are_those_of_the_annotations_in_the_order_of_the_originals(folder: Path) -> None:
    found = case()
    dataset = read_annotations(folder, "toy", str.split)
    for split, others in (("train", ("train",)), ("val", ("val",)), ("test", ("test",))):
        count = sum(len(image.references) for image in dataset.split(*others))
        assert count == found["n_examples"][split]
    images = dataset.split("train")
    pairs = [(image.file, text) for image in images for text in image.references]
    for (file, text), (path, caption, segments) in zip(
        pairs, found["train_examples"], strict=False
    ):
        assert path == segments == f"coco/images/{file}"
        assert text == " ".join(caption.split())
    assert [file[-16:] for file, _ in pairs] == found["train_example_order"]
    assert len(images) == found["dict_len_train"]
    for split, key in (("train", "dict_batch_captions"), ("test", "test_batch_captions")):
        for image, expected in zip(dataset.split(split), found[key], strict=False):
            assert list(image.references) == [" ".join(text.split()) for text in expected]


def test_tokens_are_the_originals() -> None:
    found = case()
    for text, expected in zip(found["preprocess_in"], found["preprocess_out"], strict=True):
        assert published_tokens(text, str.split) == expected


def test_tokens_of_spacy_are_the_originals() -> None:
    pytest.importorskip("spacy")
    path = FOLDER / "inventory.json"
    if not path.exists():
        pytest.skip(f"fixture {path} is not here (CAPSCOPE_GOLDEN names another folder)")
    sample = json.loads(path.read_text("utf-8"))["spacy_tokens"]
    for text, expected in zip(sample["captions"], sample["tokens"], strict=True):
        words = [token for token in expected if token.strip()]  # blanks are words there
        assert published_tokens(text, spacy_rules()) == words


def test_words_are_counted_over_the_captions_that_train_and_validate(folder: Path) -> None:
    found, golden = case(), load("data_case.npz")
    dataset = read_annotations(folder, "toy", str.split)
    counts: Counter[str] = Counter()
    for image in dataset.split("train", "val"):
        for tokens in image.tokens:
            counts.update(tokens)
    assert counts == found["freqs"]
    kept = [word for word, count in counts.items() if count >= golden.meta["min_freq"]]
    vocabulary = published(by_count(kept, counts))
    assert list(vocabulary.words) == found["itos"]
    batch = golden["xe_batch/captions"].tolist()
    tokens = [words for image in dataset.split("train") for words in image.tokens]
    for row, words in zip(batch, tokens, strict=False):
        framed = [vocabulary.start, *vocabulary.encode(words), vocabulary.end]
        assert row == [*framed, *[vocabulary.pad] * (len(row) - len(framed))]
    special = (vocabulary.unk, vocabulary.pad, vocabulary.start, vocabulary.end)
    assert [vocabulary.words[one] for one in special if one is not None] == [
        "<unk>",
        "<pad>",
        "<bos>",
        "<eos>",
    ]


def test_repeated_words_are_collapsed_as_in_the_originals_evaluation() -> None:
    found = case()
    for words, joined in zip(found["decode_tokens"], found["decode_joined"], strict=True):
        assert " ".join(words) == joined
    for words, expected in zip(found["decode_tokens"], found["decode_collapsed"], strict=True):
        kept = collapsed(range(len(words)), words)
        assert " ".join(words[i] for i in kept) == expected


def test_decoding_stops_at_the_first_end() -> None:
    found, golden = case(), load("data_case.npz")
    for row, words in zip(golden["decode/ids"].tolist(), found["decode_tokens"], strict=True):
        end = found["itos"].index("<eos>")
        said = row[: row.index(end)] if end in row else row
        assert [found["itos"][i] for i in said] == words


def test_captions_are_tokenised_for_scores_as_in_the_original() -> None:
    found = case()
    expected = [texts[0] for texts in found["ptb_out"].values()]
    assert treebank_tokenize(found["ptb_in"]) == expected
    for texts, tokens in zip(found["ptb_in_nested"], found["ptb_out_nested"].values(), strict=True):
        assert treebank_tokenize(texts) == tokens


def evaluated() -> tuple[list[list[list[str]]], list[list[str]]]:
    """Return references and captions of the evaluation as tokens."""
    found = case()
    references = [treebank_tokenize(texts) for texts in found["eval_gts"].values()]
    captions = treebank_tokenize([texts[0] for texts in found["eval_gen"].values()])
    return [[text.split() for text in texts] for texts in references], [
        text.split() for text in captions
    ]


def test_scores_are_the_originals() -> None:
    found, (references, captions) = case(), evaluated()
    for name, score in (("ROUGE", rouge_l), ("CIDEr", cider_d), ("BLEU", bleu)):
        total, each = score(references, captions)
        np.testing.assert_allclose(total, found["eval_scores"][name], rtol=1e-6)
        expected = found["eval_score_lists"][name]
        np.testing.assert_allclose(each, expected, rtol=1e-6, err_msg=name)


@pytest.mark.slow
def test_meteor_is_the_originals() -> None:
    found, (references, captions) = case(), evaluated()
    with Meteor() as process:
        process.start()
        texts = [[" ".join(words) for words in image] for image in references]
        said = [" ".join(words) for words in captions]
        total, each = meteor_scores(process.statistics(texts, said))
    assert total == pytest.approx(found["eval_scores"]["METEOR"], rel=1e-6)
    assert list(each) == pytest.approx(found["eval_score_lists"]["METEOR"], rel=1e-6)


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
