"""What stages minimise, against enumerations of all captions and matrices written out in full."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from toy_captioner import toy

from capscope.data.captions import EncodedCaptions
from capscope.data.vocabulary import Vocabulary
from capscope.decoding.sampling import argmax, roll_out
from capscope.errors import CapscopeError
from capscope.features.visual import Features
from capscope.models import build
from capscope.training.reweighted import ReweightedCaptioner
from capscope.training.stages import build_stage
from capscope.training.stages.lrp_xe import neutral_words
from capscope.training.stages.stage import Corpus

VOCABULARY = Vocabulary(("<pad>", "the", "dog", "cat", "<unk>", "<start>", "<end>"), 0, 5, 6, 4)
START, END, WORDS, LONGEST = 5, 6, (1, 2, 3), 2
DRAWS: dict[str, Any] = {
    "samples": 3,
    "baseline": "others",
    "cider_weight": 1.0,
    "bleu_weight": 0.5,
    "frequencies": "training",
    "end_token": "both",
    "dropout": False,
    "special_words": False,
}


def corpus_of(features: Features) -> Corpus:
    """Two references of at most `LONGEST` words for each image; image ids fall."""
    images = len(features.cells)
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, LONGEST + 1, 2 * images)
    labels = rng.integers(1, 4, (2 * images, LONGEST)).astype(np.uint16)
    labels[np.arange(LONGEST) >= lengths[:, None]] = 0
    ids = np.arange(100, 100 - images, -1)
    captions = EncodedCaptions(
        image_ids=ids,
        labels=labels,
        lengths=lengths,
        first=np.arange(images) * 2 + 1,
        last=np.arange(images) * 2 + 2,
        vocabulary_sha256="",
    )
    store: Any = SimpleNamespace(read=lambda wanted: features.select(torch.tensor(100 - wanted)))
    return Corpus(captions, np.arange(2 * images), VOCABULARY, store)


def references(corpus: Corpus, image: int) -> list[list[int]]:
    rows = range(2 * image, 2 * image + 2)
    labels, lengths = corpus.captions.labels, corpus.captions.lengths
    return [labels[row, : lengths[row]].tolist() for row in rows]


def test_every_image_is_rewarded_by_its_own_references():
    captioner, features = toy(0, images=4)
    corpus = corpus_of(features)
    stage: Any = build_stage("scst", captioner, corpus, DRAWS)
    assert stage.images.tolist() == [100, 99, 98, 97]
    for image in range(4):
        expected = [[*words, END] for words in references(corpus, image)]
        assert stage.reward.references[image] == expected
    batches = stage.batches(3, seed=1, epoch=0)
    assert sorted(np.concatenate(batches)) == [0, 1, 2, 3]
    assert not np.array_equal(batches[0], stage.batches(3, seed=1, epoch=1)[0])


@pytest.mark.parametrize("baseline", ["others", "greedy"])
@pytest.mark.parametrize("dropout", [False, True])
def test_the_loss_is_that_of_each_draw_against_its_baseline(baseline, dropout):
    captioner, features = toy(1, images=3)
    if dropout:
        captioner.train()
        captioner.dropout.p = 0.0  # on, but drawing the same words in every pass
    settings = {**DRAWS, "baseline": baseline, "dropout": dropout}
    stage: Any = build_stage("scst", captioner, corpus_of(features), settings)
    batch = np.array([2, 0])
    torch.manual_seed(5)
    outcome = stage.step(batch)
    torch.manual_seed(5)
    word_ids, log_probs = stage._draw(features.select(torch.tensor([2, 0])), 3)
    drawn = word_ids.tolist()
    assert len({tuple(row) for image in drawn for row in image}) > 2
    greedy = roll_out(
        captioner,
        captioner.encode(features),
        argmax,
        start=START,
        end=END,
        steps=LONGEST + 1,
        forbidden=(0, 4, START),
    ).word_ids
    total, words, spoken = 0.0, 0, iter(log_probs.detach())
    for place, image in enumerate(batch):
        rewards = [float(stage.reward.score([row], [image])[0]) for row in drawn[place]]
        for number, row in enumerate(drawn[place]):
            others = rewards[:number] + rewards[number + 1 :]
            against = sum(others) / 2
            if baseline == "greedy":
                against = float(stage.reward.score(greedy[image].tolist(), [image])[0])
            length = row.index(END) + 1 if END in row else len(row)
            total -= float(next(spoken)[:length].sum()) * (rewards[number] - against)
            words += length
    assert outcome.loss.item() == pytest.approx(total / words)
    assert outcome.weight == 6
    assert captioner.training == dropout


def test_the_gradient_is_that_of_the_expected_reward():
    """Over many draws, the step goes where the sum over all captions of p times reward rises."""
    captioner, features = toy(2, images=3, sharpness=1.0)
    settings = {**DRAWS, "samples": 40_000, "bleu_weight": 0.0}
    stage: Any = build_stage("scst", captioner, corpus_of(features), settings)
    weights = list(captioner.parameters())

    captions = [
        caption
        for length in range(LONGEST + 1)
        for caption in itertools.product(WORDS, repeat=length)
    ]
    # Captions of LONGEST words are drawn with and without their end: both are whole draws.
    rows = [[*caption, END] for caption in captions]
    rows += [[*caption, word] for caption in captions if len(caption) == LONGEST for word in WORDS]
    expected = torch.zeros((), dtype=torch.float64)
    for row in rows:
        inputs = torch.tensor([[START, *row[:-1]]])
        logits = captioner.readout(captioner.hidden(features.select(slice(0, 1)), inputs).values)[0]
        logits = logits.index_fill(-1, torch.tensor([0, 4, START]), -torch.inf)
        spoken = logits.log_softmax(-1)[torch.arange(len(row)), torch.tensor(row)].sum()
        expected = expected + spoken.exp() * float(stage.reward.score([row], [0])[0])
    wanted = torch.cat([g.flatten() for g in torch.autograd.grad(-expected, weights)])

    torch.manual_seed(0)
    found = torch.autograd.grad(stage.step(np.array([0])).loss, weights)
    got = torch.cat([g.flatten() for g in found])
    cosine = torch.dot(got, wanted) / got.norm() / wanted.norm()
    assert float(cosine) > 0.995


def test_special_words_are_drawn_only_on_request():
    captioner, features = toy(3, images=2, sharpness=0.2)
    corpus = corpus_of(features)
    for allowed in (False, True):
        settings = {**DRAWS, "samples": 200, "special_words": allowed}
        stage: Any = build_stage("scst", captioner, corpus, settings)
        torch.manual_seed(0)
        word_ids, log_probs = stage._draw(features, 200)
        ended = (word_ids == END).cumsum(-1) - (word_ids == END).long()
        said = set(word_ids[ended == 0].tolist())
        assert said == ({0, 1, 2, 3, 4, 5, 6} if allowed else {1, 2, 3, 6})
        assert torch.isfinite(log_probs).all()


def a_captioner(name: str) -> tuple[Any, Features, Corpus]:
    torch.manual_seed(4)
    size = {"heads": 2} if name == "aoa" else {"attention": 6}
    captioner = build(
        name, vocabulary_size=7, feature_size=5, embedding=6, hidden=8, dropout=0.0, **size
    )
    captioner = captioner.double().eval()
    with torch.no_grad():
        captioner.words.weight *= 6
    features = Features(torch.randn(3, 4, 5, dtype=torch.float64))
    return captioner, features, corpus_of(features)


def slow_weighted_logits(captioner: Any, hidden: Any, context: Any) -> tuple[Any, Any]:
    """Equations of the sheet for one position, with the whole V x H attribution matrix."""

    def stabilised(z: torch.Tensor) -> torch.Tensor:
        return torch.where(z == 0, torch.full_like(z, 0.01), z + 0.01 * torch.sign(z))

    weight, bias = captioner.words.weight.detach(), captioner.words.bias.detach()
    total = hidden + context
    logits = weight @ total + bias
    word = int(logits.argmax())
    if word in (0, 1, 4, 5, 6):  # special words, and `the`
        return logits, logits
    start = torch.zeros(len(logits), dtype=logits.dtype)
    start[word] = logits[word]
    whole = weight * total * (start / stabilised(logits)).unsqueeze(1)
    relevance = whole.sum(0)
    scaled = []
    for part in (hidden, context):
        share = part * relevance / stabilised(total)
        scaled.append(part * (share / share.abs().max() + 1))
    return logits, weight @ sum(scaled) + bias


@pytest.mark.parametrize("name", ["gridtd", "adaptive", "aoa"])
def test_lrp_xe_is_the_sum_of_both_cross_entropies(name):
    captioner, features, corpus = a_captioner(name)
    stage: Any = build_stage("lrp_xe", captioner, corpus, {"weight": 0.7, "scheduled_sampling": 0})
    batch = np.array([3, 0, 4])
    outcome = stage.step(batch)
    plain, weighted, changed = [], [], 0
    for row in batch:
        words = references(corpus, row // 2)[row % 2]
        inputs = torch.tensor([[START, *words]])
        summands = captioner.summands(features.select(torch.tensor([row // 2])), inputs)
        for t, target in enumerate([*words, END]):
            logits, again = slow_weighted_logits(
                captioner, summands.hidden[0, t].detach(), summands.context[0, t].detach()
            )
            plain.append(-float(logits.log_softmax(-1)[target]))
            weighted.append(-float(again.log_softmax(-1)[target]))
            changed += not torch.equal(logits, again)
    assert changed
    assert outcome.measures["loss_plain"] == pytest.approx(np.mean(plain))
    assert outcome.measures["loss_weighted"] == pytest.approx(np.mean(weighted))
    assert outcome.loss.item() == pytest.approx(np.mean(plain) + 0.7 * np.mean(weighted))
    assert outcome.weight == len(plain)


@pytest.mark.parametrize("name", ["gridtd", "adaptive", "aoa"])
def test_the_reweighted_captioner_speaks_step_by_step_as_in_one_pass(name):
    captioner, features, _ = a_captioner(name)
    policy = ReweightedCaptioner(captioner, neutral_words(VOCABULARY))
    word_ids = torch.randint(1, 4, (3, 6))
    whole = policy.readout(policy.hidden(features, word_ids).values).log_softmax(-1)
    memory = policy.encode(features)
    state, steps = policy.start(memory), []
    for t in range(6):
        step = policy.step(word_ids[:, t : t + 1], state, memory)
        state = step.state
        steps.append(step.log_probs[:, 0])
    torch.testing.assert_close(torch.stack(steps, 1), whole)
    ordinary = captioner.readout(captioner.hidden(features, word_ids).values).log_softmax(-1)
    assert not torch.allclose(ordinary, whole)
    some = policy.readout(policy.hidden(features, word_ids).values, word_ids)
    logits = policy.readout(policy.hidden(features, word_ids).values)
    torch.testing.assert_close(some, logits.gather(-1, word_ids.unsqueeze(-1)).squeeze(-1))


def test_lrp_scst_draws_from_the_reweighted_captioner_and_trains_the_ordinary_one():
    captioner, features, corpus = a_captioner("gridtd")
    stage: Any = build_stage("lrp_scst", captioner, corpus, {**DRAWS, "samples": 6})
    assert {id(p) for p in stage.policy.parameters()} == {id(p) for p in captioner.parameters()}
    torch.manual_seed(0)
    word_ids, log_probs = stage._draw(features, 6)
    policy = ReweightedCaptioner(captioner, neutral_words(VOCABULARY))
    rows = torch.arange(3).repeat_interleave(6)
    flat = word_ids.flatten(0, 1)
    fed = flat.masked_fill(flat == END, 0)[:, :-1]
    inputs = torch.cat([fed.new_full((len(fed), 1), START), fed], 1)
    logits = policy.readout(policy.hidden(features.select(rows), inputs).values)
    logits = logits.index_fill(-1, torch.tensor([0, 4, START]), -torch.inf)
    spoken = logits.log_softmax(-1).gather(-1, flat.unsqueeze(-1)).squeeze(-1)
    before_end = (flat == END).cumsum(1) - (flat == END).long() == 0
    torch.testing.assert_close(log_probs[before_end], spoken[before_end])
    stage.step(np.array([0, 1, 2])).loss.backward()
    assert captioner.words.weight.grad.abs().sum() > 0


def test_captioners_without_two_summands_have_no_relevance_stages():
    captioner, features = toy(0, images=2)
    for stage, settings in {"lrp_xe": {"weight": 1.0}, "lrp_scst": DRAWS}.items():
        with pytest.raises(CapscopeError, match="lrp_xe and lrp_scst are for captioners"):
            build_stage(stage, captioner, corpus_of(features), settings)


def test_stop_words_and_special_words_are_neutral():
    assert neutral_words(VOCABULARY).tolist() == [True, True, False, False, True, True, True]
