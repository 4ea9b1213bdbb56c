"""BERTScore against the library's own scorer and a slow twin, with tiny random encoders."""

from __future__ import annotations

import math

import bert_score
import numpy as np
import pytest
import torch
import transformers
from tiny_models import tiny_bert, tiny_roberta

from capscope.errors import CapscopeError
from capscope.metrics import bertscore as module
from capscope.metrics.bertscore import BertScore, names_of
from capscope.metrics.pretrained import weights_digest
from capscope.metrics.task import Task, Texts, UnavailableError

CAPTIONS = [
    "a red dog sits on a sofa",
    "two dogs",
    "a man with a hat walking",
    "the green cat xyz",
    "a man",
]
REFERENCES = [
    ["a dog on the couch", "the red dog sits", "a red dog sits on a sofa"],
    ["two dogs on a street", "dogs walking"],
    ["a man walking with the dog on the street", "the man", "a hat"],
    ["a cat sits on a green couch", "the cat"],
    ["a man", "a hat with a man on it and a dog and a cat on the green street walking"],
]
PAIRS = [(c, r) for c, theirs in zip(CAPTIONS, REFERENCES, strict=True) for r in theirs]
FLAT = [reference for _, reference in PAIRS]


@pytest.fixture(scope="module", params=["bert", "roberta"])
def folder(request, tmp_path_factory):
    make = {"bert": tiny_bert, "roberta": tiny_roberta}[request.param]
    return make(tmp_path_factory.mktemp("models") / request.param)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("models") / "one")


def task(captions=CAPTIONS, references=REFERENCES, left_out=(None,), rows=None):
    texts = Texts(references, rows or [captions])
    return Task(raw=texts, tokenized=texts, left_out=left_out, images=[])


def encoder(folder, layers):
    model = transformers.AutoModel.from_pretrained(folder, num_hidden_layers=layers).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, add_prefix_space=True)

    def encode(text):
        ids = tokenizer(text)["input_ids"]
        with torch.no_grad():
            states = model(torch.tensor([ids]))[0][0].double()
        return ids, states

    return encode


def slow_score(encode, caption, reference, idf=None):
    """P, R, F as in equations 1 and 2 of the paper, token by token."""
    (ids, states), (other_ids, others) = encode(caption), encode(reference)

    def side(ids, states, others):
        total = weights = 0.0
        for place in range(1, len(ids) - 1):
            weight = 1.0 if idf is None else idf(ids[place])
            cosines = [torch.cosine_similarity(states[place], other, dim=0) for other in others]
            total += weight * max(map(float, cosines))
            weights += weight
        return total / weights

    precision, recall = side(ids, states, others), side(other_ids, others, states)
    return [precision, recall, 2 * precision * recall / (precision + recall)]


def idf_of(encode, references):
    documents = [set(encode(text)[0]) for text in references]
    count = len(documents)
    return lambda token: math.log((count + 1) / (sum(token in d for d in documents) + 1))


@pytest.mark.parametrize("idf", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_scores_are_those_of_the_equations(folder, layers, idf):
    ours = BertScore(str(folder), layers=layers, idf=idf, batch_size=3).pairs(PAIRS)
    encode = encoder(folder, layers)
    weights = idf_of(encode, FLAT) if idf else None
    twin = [slow_score(encode, *pair, weights) for pair in PAIRS]
    np.testing.assert_allclose(ours, twin, rtol=0, atol=2e-6)
    assert np.ptp(ours[:, 2]) > 0.05


@pytest.mark.parametrize("idf", [False, True])
def test_scores_and_maxima_are_those_of_the_library(bert, idf, monkeypatch):
    original = transformers.AutoTokenizer.from_pretrained
    monkeypatch.setattr(
        transformers.AutoTokenizer,
        "from_pretrained",
        lambda *args, **options: original(*args, **options, model_max_length=40),
    )
    library = bert_score.BERTScorer(
        str(bert), num_layers=2, idf=idf, idf_sents=FLAT if idf else None, device="cpu", nthreads=0
    )
    ours = BertScore(str(bert), layers=2, idf=idf)
    theirs = torch.stack(library.score([c for c, _ in PAIRS], FLAT), dim=-1)
    np.testing.assert_allclose(ours.pairs(PAIRS), theirs, rtol=0, atol=2e-6)
    best = library.score(CAPTIONS, REFERENCES)
    measures = ours.measures(task())[0]
    for name, values in zip(("BERTScore-P", "BERTScore-R", "BERTScore"), best, strict=True):
        np.testing.assert_allclose(measures[name].per_image, values, rtol=0, atol=2e-6)
        assert measures[name].value == pytest.approx(float(values.mean()), abs=2e-6)


def test_the_mean_over_pairs_is_over_all_pairs_not_over_images(bert):
    scorer = BertScore(str(bert), layers=2)
    measure = scorer.measures(task())[0]["BERTScore-pairs"]
    scores = scorer.pairs(PAIRS)[:, 2]
    assert measure.value == pytest.approx(scores.mean(), abs=1e-12)
    assert measure.count == len(PAIRS)
    sizes = np.cumsum([len(theirs) for theirs in REFERENCES])[:-1]
    per_image = [part.mean() for part in np.split(scores, sizes)]
    np.testing.assert_allclose(measure.per_image, per_image, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("aggregation", "names"),
    [
        (["best"], ("BERTScore-P", "BERTScore-R", "BERTScore")),
        (["pairs"], ("BERTScore-pairs",)),
        (["pairs", "best"], ("BERTScore-P", "BERTScore-R", "BERTScore", "BERTScore-pairs")),
    ],
)
def test_a_system_gets_the_aggregation_that_it_asks_for(bert, aggregation, names):
    scorer = BertScore(str(bert), layers=1, aggregation=aggregation)
    assert names_of(aggregation) == names
    assert tuple(scorer.measures(task())[0]) == names


def test_a_reference_is_scored_against_the_others(bert):
    scorer = BertScore(str(bert), layers=1)
    human = [theirs[1] for theirs in REFERENCES]
    others = [[theirs[0], *theirs[2:]] for theirs in REFERENCES]
    left_out, alone = scorer.measures(task(rows=[CAPTIONS, human], left_out=[None, 1])), None
    alone = scorer.measures(task(human, others))[0]
    for name in names_of(["best", "pairs"]):
        np.testing.assert_array_equal(left_out[1][name].per_image, alone[name].per_image)


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_an_empty_caption_scores_0_and_an_empty_reference_is_no_help(bert, empty):
    scorer = BertScore(str(bert), layers=2, idf=True)
    captions = [empty, *CAPTIONS[1:]]
    references = [REFERENCES[0], [*REFERENCES[1], empty], *REFERENCES[2:-1], [empty]]
    with pytest.warns(UserWarning, match="1 empty captions is set to 0"):
        measures = scorer.measures(task(captions, references))[0]
    full = scorer.measures(task(CAPTIONS[:4], REFERENCES[:4]))[0]
    f_score = measures["BERTScore"].per_image
    assert f_score[0] == f_score[-1] == 0
    assert f_score[1] > 0
    assert not np.isnan(measures["BERTScore-P"].per_image).any()
    assert full["BERTScore"].per_image.min() > 0
    pairs = measures["BERTScore-pairs"]
    assert pairs.count == sum(map(len, references))


def test_words_that_all_references_share_have_no_weight_and_no_undefined_score(bert):
    scores = BertScore(str(bert), layers=1, idf=True).pairs([("a", "a dog"), ("a", "a cat")])
    np.testing.assert_array_equal(scores[:, [0, 2]], 0)


def test_a_score_does_not_depend_on_its_neighbours(folder, monkeypatch):
    scorer = BertScore(str(folder), layers=2)
    together = scorer.pairs(PAIRS)
    alone = np.concatenate([scorer.pairs([pair]) for pair in PAIRS])
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(scorer.pairs(PAIRS[::-1])[::-1], together)
    whole = scorer.measures(task())[0]["BERTScore"].per_image
    monkeypatch.setattr(module, "IMAGES_AT_ONCE", 2)
    parts = scorer.measures(task())[0]["BERTScore"].per_image
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-6)


def test_captions_longer_than_the_encoder_reads_are_cut(folder):
    scorer = BertScore(str(folder), layers=1)
    long = "a red dog " * 100
    scores = scorer.pairs([(long, "a dog"), (long + " cat", "a dog")])
    np.testing.assert_array_equal(scores[0], scores[1])


def test_the_first_word_of_a_sentence_is_encoded_as_inside_it(tmp_path):
    scorer = BertScore(str(tiny_roberta(tmp_path / "roberta")), layers=1)
    tokens = scorer._tokenizer.convert_ids_to_tokens(scorer._tokenizer("dog on")["input_ids"])
    assert tokens[1].startswith("Ġ")


def test_raw_text_is_scored_when_asked_for(bert):
    plain = Texts([["the cat"]], [["a dog"]])
    both = Task(
        raw=Texts([["A cat!"]], [["Two dogs."]]), tokenized=plain, left_out=[None], images=[]
    )
    raw = BertScore(str(bert), layers=1, text="raw").measures(both)[0]["BERTScore"]
    tokenized = BertScore(str(bert), layers=1).measures(both)[0]["BERTScore"]
    pair = BertScore(str(bert), layers=1).pairs([("Two dogs.", "A cat!")])
    assert raw.value == pair[0, 2] != tokenized.value
    assert "raw text" in raw.note
    assert "tokenized text" in tokenized.note


def test_scores_are_rescaled_by_the_baseline_of_the_library_or_of_a_file(bert, tmp_path):
    np.testing.assert_allclose(
        module._baseline("roberta-large", 17), [0.83150584, 0.8314941, 0.83122575], rtol=1e-6
    )
    table = tmp_path / "table.tsv"
    table.write_text("LAYER,P,R,F\n0,0.1,0.1,0.1\n1,0.2,0.3,0.5\n")
    plain = BertScore(str(bert), layers=1).pairs(PAIRS)
    rescaled = BertScore(str(bert), layers=1, rescale=str(table)).pairs(PAIRS)
    base = np.array([0.2, 0.3, 0.5])
    np.testing.assert_allclose(rescaled, (plain - base) / (1 - base), rtol=0, atol=1e-5)
    with pytest.raises(CapscopeError, match=r"table\.tsv has no layer 2"):
        BertScore(str(bert), layers=2, rescale=str(table))
    with pytest.raises(CapscopeError, match=r"rescale: bert-score holds no baseline of 'nobody'"):
        BertScore(str(bert), layers=2, rescale="nobody")


def test_a_model_that_is_not_here_makes_the_metric_unavailable(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in (str(tmp_path / "nothing"), "nobody/nothing"):
        with pytest.raises(UnavailableError, match=r"not available.*bertscore_options\.model"):
            BertScore(name, layers=1)


def test_a_layer_that_the_model_lacks_is_named(bert):
    with pytest.raises(CapscopeError, match=r"layers is 9, .* has 3 layers"):
        BertScore(str(bert), layers=9)


def test_what_a_score_depends_on_stands_beside_it(bert, tmp_path):
    note = BertScore(str(bert), layers=2).measures(task())[0]["BERTScore"].note
    for part in (str(bert), "bert-score 0.3", "transformers", "torch 2", "layer 2", "no idf"):
        assert part in note
    model = transformers.AutoModel.from_pretrained(bert, num_hidden_layers=2)
    digest = weights_digest(model)
    assert f"weights sha256 {digest[:16]}" in note
    other = transformers.AutoModel.from_pretrained(
        tiny_bert(tmp_path / "other", seed=1), num_hidden_layers=2
    )
    assert weights_digest(other) != digest
    with torch.no_grad():
        model.get_input_embeddings().weight[0, 0] += 1e-3
    assert weights_digest(model) != digest
