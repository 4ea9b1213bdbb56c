"""Caption metrics against pycocoevalcap 1.2, ruotianluo/cider and the tokeniser's own output."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from capscope.metrics.bleu import bleu
from capscope.metrics.cider import cider_d
from capscope.metrics.evaluate import CaptionScorer
from capscope.metrics.frequencies import DocumentFrequencies
from capscope.metrics.frequent import FREQUENT_WORDS, frequent_word_measures
from capscope.metrics.meteor import Meteor, meteor_scores
from capscope.metrics.original import original_scores
from capscope.metrics.rouge import rouge_l
from capscope.metrics.tokenized import regroup
from capscope.metrics.tokenizer import PUNCTUATION, drop_punctuation, one_line, ptb_tokenize
from capscope.metrics.treebank import treebank_tokenize

ROOT = Path(__file__).parents[2]
GOLDEN = Path(os.environ.get("CAPSCOPE_GOLDEN", ROOT / "../shared/golden"))
TOLERANCE = 1e-6
ORIGINAL_NAMES = {f"Bleu_{n}": f"BLEU-{n}" for n in (1, 2, 3, 4)} | {
    "ROUGE_L": "ROUGE-L",
    "CIDEr": "CIDEr",
    "METEOR": "METEOR",
}


def golden(name):
    path = GOLDEN / "metrics" / name
    if not path.exists():
        pytest.skip(f"fixture {path} is not here (CAPSCOPE_GOLDEN names another folder)")
    return json.loads(path.read_text("utf-8"))


def close(ours, theirs, tolerance=TOLERANCE):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def captions():
    return golden("captions.json")


@pytest.fixture(scope="module")
def meteor():
    with Meteor() as process:
        process.start()
        yield process


def images_of(captions, tag):
    return captions["fakecap_ids"] if tag == "fakecap_only" else captions["ids"]


def tokens_of(captions, ids):
    references = [[text.split() for text in captions["tok_refs"][i]] for i in ids]
    return references, [captions["tok_cands"][i][0].split() for i in ids]


@pytest.mark.slow
def test_tokens_of_captions_are_those_of_the_original(captions):
    references = [captions["refs"][i] for i in captions["ids"]]
    expected = [captions["tok_refs"][i] for i in captions["ids"]]
    flat = ptb_tokenize([text for group in references for text in group], parity=True)
    assert regroup(flat, references) == expected
    candidates = ptb_tokenize([captions["cands"][i] for i in captions["ids"]], parity=True)
    assert [[text] for text in candidates] == [captions["tok_cands"][i] for i in captions["ids"]]


@pytest.mark.slow
def test_scores_and_scores_per_image_are_those_of_the_original(captions, meteor):
    corpus, per_image = golden("scores.json"), golden("per_image_scores.json")
    for tag, expected in per_image.items():
        ids = images_of(captions, tag)
        references = [captions["tok_refs"][i] for i in ids]
        candidates = [captions["tok_cands"][i][0] for i in ids]
        measures = CaptionScorer(references, meteor).measures(candidates)
        for original, name in ORIGINAL_NAMES.items():
            close(measures[name].value, corpus[tag][original])
            close(measures[name].per_image, expected[original])
        totals = corpus[tag]["bleu_totals"]
        counted = [*totals["correct"], *totals["guess"], totals["testlen"], totals["reflen"]]
        assert measures["BLEU-4"].sums.sum(0).tolist() == counted
        statistics = meteor.statistics(references, candidates)
        rows = [list(map(float, row.split())) for row in expected["METEOR_stats"]]
        assert statistics.tolist() == rows


@pytest.mark.parametrize("tag", ["all", "fakecap_only"])
def test_scores_equal_those_of_the_original_to_the_last_digits(captions, tag):
    ids = images_of(captions, tag)
    check_against_original(
        [captions["tok_refs"][i] for i in ids], [captions["tok_cands"][i][0] for i in ids]
    )


@pytest.mark.parametrize("file", ["edge_cases.json", "edge_cases2.json"])
def test_edge_cases_equal_those_of_the_original_to_the_last_digits(file):
    case = golden(file)
    if "degenerate" in case:
        case = case["degenerate"]
        references, candidates = case["gts"], case["res"]
    else:
        case = case["negative_idf"]
        references, candidates = case["refs"], case["cands"]
    check_against_original(
        [references[i] for i in references], [candidates[i][0] for i in references]
    )


def check_against_original(references, candidates):
    measures = CaptionScorer(references).measures(candidates)
    for name, (value, per_image) in original_scores(references, candidates).items():
        close(measures[name].value, value, 1e-12)
        close(measures[name].per_image, per_image, 1e-12)


def test_cider_d_with_cached_frequencies_is_that_of_the_original(captions):
    expected = golden("scores.json")["ciderD_cached_df_first40"]
    references, candidates = tokens_of(captions, captions["ids"])
    frequencies = DocumentFrequencies.of(references)
    assert frequencies.images == expected["ref_len"]
    count = len(expected["per_image"])
    mean, scores = cider_d(references[:count], candidates[:count], frequencies)
    close(mean, expected["mean"])
    close(scores, expected["per_image"])


def test_cider_d_of_word_ids_with_the_end_token_is_that_of_the_original(captions):
    expected = golden("scores.json")["ciderD_ids_with_eos_first40"]
    references, candidates = tokens_of(captions, captions["ids"])
    numbers = {}

    def encode(words):
        return [numbers.setdefault(word, len(numbers) + 1) for word in words] + [0]

    references = [[encode(text) for text in image] for image in references]
    candidates = [encode(text) for text in candidates]
    count = len(expected["per_image"])
    mean, scores = cider_d(
        references[:count], candidates[:count], DocumentFrequencies.of(references)
    )
    close(mean, expected["mean"])
    close(scores, expected["per_image"])


def test_edge_cases_of_the_tokeniser_are_those_of_the_original():
    edge = golden("edge_cases.json")
    assert set(edge["punctuation_removed"]) == PUNCTUATION
    for row in edge["tokenizer"]:
        assert drop_punctuation(row["raw"]) == row["tokens"]
    texts = [row["in"] for row in edge["tokenizer"]]
    for row, tokens in zip(edge["tokenizer"], ptb_tokenize(texts), strict=True):
        if tokens != row["tokens"] and one_line(row["in"]) == row["in"]:
            assert ptb_tokenize([row["in"]], parity=True) == [row["tokens"]]


@pytest.mark.slow
def test_degenerate_captions_score_as_in_the_original(meteor):
    edge = golden("edge_cases.json")["degenerate"]
    references = [edge["gts"][key] for key in edge["gts"]]
    candidates = [edge["res"][key][0] for key in edge["gts"]]
    measures = CaptionScorer(references, meteor).measures(candidates)
    for order, (value, scores) in enumerate(zip(edge["bleu"], edge["bleu_per"], strict=True), 1):
        close(measures[f"BLEU-{order}"].value, value)
        close(measures[f"BLEU-{order}"].per_image, scores)
    for name, key in (("ROUGE-L", "rouge"), ("CIDEr", "cider"), ("METEOR", "meteor")):
        close(measures[name].value, edge[key])
        close(measures[name].per_image, edge[f"{key}_per"])
    rows = np.array([row.split() for row in edge["meteor_stats"]], np.float64)
    close(meteor_scores(rows)[1], edge["meteor_per"])
    alone = cider_d([[text.split() for text in references[0]]], [candidates[0].split()])
    assert alone[0] == edge["cider_single_image"]


@pytest.mark.slow
def test_a_caption_alone_has_the_tokens_of_a_file_of_its_own():
    rows = golden("edge_cases2.json")["rows"]
    tokens = ptb_tokenize([row["in"] for row in rows])
    different = [row for row, ours in zip(rows, tokens, strict=True) if ours != row["tokens_alone"]]
    for row in different:
        # The original loses what follows a line separator, and cuts a contraction that ends the
        # file (``you're`` becomes ``you ` re``): of a single line, the end of the file is parity.
        if one_line(row["in"]) == row["in"]:
            assert ptb_tokenize([row["in"]], parity=True) == [row["tokens_alone"]]
    assert len(different) <= 0.02 * len(rows)


def test_a_caption_before_another_has_the_tokens_of_the_original():
    rows = [row for row in golden("edge_cases2.json")["rows"] if one_line(row["in"]) == row["in"]]
    # A word that starts no sentence keeps one row's lines from the next row's.
    lines = [line for row in rows for line in (row["in"], row["next"], "Zzz")]
    tokens = ptb_tokenize(lines, parity=True)[::3]
    # With an empty successor, the last line of the file is seen instead of the next row.
    expected = [row["tokens_with_next"] for row in rows]
    different = [k for k, row in enumerate(rows) if tokens[k] != expected[k]]
    for k in different:
        pair = ptb_tokenize([rows[k]["in"], rows[k]["next"]], parity=True)
        assert pair[0] == expected[k]
    assert len(different) <= 0.02 * len(rows)


def test_the_python_tokeniser_agrees_on_all_but_the_end_of_a_file():
    rows = [row for row in golden("edge_cases2.json")["rows"] if one_line(row["in"]) == row["in"]]
    ours = treebank_tokenize([row["in"] for row in rows])
    different = [row for row, text in zip(rows, ours, strict=True) if text != row["tokens_alone"]]
    assert len(different) <= 0.01 * len(rows), [row["in"] for row in different]
    lines = [line for row in rows for line in (row["in"], row["next"], "Zzz")]
    ours = treebank_tokenize(lines, parity=True)[::3]
    different = [r for r, text in zip(rows, ours, strict=True) if text != r["tokens_with_next"]]
    assert len(different) <= 0.01 * len(rows), [row["in"] for row in different]


def test_negative_weights_of_a_larger_corpus_score_as_in_the_original():
    case = golden("edge_cases2.json")["negative_idf"]
    ids = case["ids"]
    references = [[text.split() for text in case["refs"][i]] for i in ids]
    candidates = [case["cands"][i][0].split() for i in ids]
    counts = {tuple(ngram.split(" ")): count for ngram, count in case["df"].items()}
    frequencies = DocumentFrequencies(counts, case["ref_len"])
    assert sum(count > case["ref_len"] for count in counts.values()) == case["n_df_above_N"]
    mean, scores = cider_d(references, candidates, frequencies)
    close(mean, case["ciderD_mean"])
    close(scores, case["ciderD_per_image"])
    mean, scores = cider_d(references, candidates)
    close(mean, case["cider_own_df"])
    close(scores, case["cider_own_df_per_image"])
    corpus, scores = bleu(references, candidates)
    close(corpus, case["bleu"])
    close(scores, case["bleu_per_image"])
    mean, scores = rouge_l(references, candidates)
    close(mean, case["rouge"])
    close(scores, case["rouge_per_image"])


@pytest.fixture(scope="module")
def text_metrics():
    path = GOLDEN / "lrp_ic" / "text_metrics.npz"
    if not path.exists():
        pytest.skip(f"fixture {path} is not here (CAPSCOPE_GOLDEN names another folder)")
    return np.load(path)


def test_scores_of_the_lrp_fixtures_are_those_of_the_original(text_metrics):
    references = [[text.split() for text in i] for i in json.loads(str(text_metrics["refs"]))]
    candidates = [text.split() for text in json.loads(str(text_metrics["hyps"]))]
    for metric, name in ((cider_d, "cider"), (bleu, "bleu"), (rouge_l, "rouge")):
        corpus, scores = metric(references, candidates)
        close(corpus, text_metrics[name], 1e-8)
        close(scores, text_metrics[f"{name}_each"], 1e-8)


def test_the_published_reward_is_cider_with_frequencies_of_the_mini_batch(text_metrics):
    references = [[text.split() for text in i] for i in json.loads(str(text_metrics["sc.ref_str"]))]
    sampled = [text.split() for text in json.loads(str(text_metrics["sc.gen_str"]))]
    words = {
        number: word for word, number in json.loads(str(text_metrics["meta"]))["word_map"].items()
    }
    greedy = [[words[i] for i in row if words[i] != "<pad>"] for row in text_metrics["sc.greedy"]]
    scores = cider_d([*references, *references], [*sampled, *greedy])[1]
    reward = scores[: len(sampled)] - scores[len(sampled) :]
    expected = text_metrics["sc.reward"]
    close(np.repeat(reward[:, None], expected.shape[1], 1), expected, 1e-8)


def test_frequent_words_score_as_in_the_original(text_metrics):
    lists = json.loads(str(text_metrics["freq.lists"]))
    said = json.loads(str(text_metrics["freq.pred"]))
    theirs = json.loads(str(text_metrics["freq.gt"]))
    captions = [said[image][0].split() for image in said]
    references = [[text.split() for text in theirs[image]] for image in said]
    for key, name in (("flickr", "flickr30k"), ("coco", "coco2017")):
        assert list(FREQUENT_WORDS[name]) == lists[key]
        measures = frequent_word_measures(lists[key], references, captions)
        close([measure.value for measure in measures.values()], text_metrics[f"freq.{key}"], 1e-8)
