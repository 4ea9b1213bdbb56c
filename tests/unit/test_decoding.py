"""Searches against slow twins: enumeration of all captions, and one image at a time."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from toy_captioner import ToyCaptioner, toy

from capscope.data.vocabulary import Vocabulary
from capscope.decoding.beam import beam_search
from capscope.decoding.diverse import diverse_beam_search
from capscope.decoding.endings import strip_bad_endings
from capscope.decoding.hypothesis import Hypothesis
from capscope.decoding.methods import search_images
from capscope.decoding.sampling import argmax, drawn, given, greedy_search, roll_out
from capscope.errors import CapscopeError
from capscope.features.visual import Features

START, END = 5, 6


def log_probs_of(captioner: ToyCaptioner, features: Features, prefix: list[int]) -> list[float]:
    """Log-probabilities of the word after `prefix`, the whole prefix fed again (slow twin)."""
    with torch.no_grad():
        hidden = captioner.hidden(features, torch.tensor([prefix])).values[:, -1:]
        return captioner.readout(hidden).log_softmax(-1)[0, 0].tolist()


def all_captions(
    captioner: ToyCaptioner, features: Features, longest: int
) -> list[tuple[float, tuple[int, ...]]]:
    """Enumerate every caption of at most `longest` words with its log-probability."""
    words = [word for word in range(captioner.vocabulary_size) if word != END]
    found = []
    for length in range(longest + 1):
        for caption in itertools.product(words, repeat=length):
            inputs = torch.tensor([[START, *caption]])
            targets = torch.tensor([[*caption, END]])
            with torch.no_grad():
                logits = captioner.readout(captioner.hidden(features, inputs).values)
            spoken = logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1))
            found.append((float(spoken.sum()), caption))
    return sorted(found, reverse=True)


def slow_beam_search(
    captioner: ToyCaptioner,
    features: Features,
    beam: int,
    longest: int,
    exponent: float = 0.0,
    shrink: bool = False,
) -> list[tuple[float, tuple[int, ...]]]:
    """Beam search of one image as one would write it down: lists, the whole prefix each step."""
    live: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    completed: list[tuple[float, tuple[int, ...]]] = []
    width = beam
    for t in range(longest if shrink else longest + 1):
        candidates = []
        for total, words in live:
            for word, log_prob in enumerate(log_probs_of(captioner, features, [START, *words])):
                if t < longest or word == END:
                    candidates.append((total + log_prob, (*words, word)))
        candidates.sort(reverse=True)
        ended = [c for c in candidates[:width] if c[1][-1] == END]
        completed += [(total / (t + 1) ** exponent, words[:-1]) for total, words in ended]
        if shrink:
            live = [c for c in candidates[:width] if c[1][-1] != END]
            width -= len(ended)
        else:
            live = [c for c in candidates if c[1][-1] != END][:beam]
        if not live:
            break
    return sorted(completed, reverse=True) or live[:1]


def one_at_a_time(search, captioner, features, **options):
    images = range(features.cells.shape[0])
    return [search(captioner, features.select(slice(i, i + 1)), **options)[0] for i in images]


def assert_same(left: Hypothesis, right: Hypothesis) -> None:
    assert left.word_ids == right.word_ids
    assert left.log_probs == pytest.approx(right.log_probs, abs=1e-9)
    assert left.score == pytest.approx(right.score, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_a_wide_beam_finds_the_most_probable_of_all_captions(seed):
    captioner, features = toy(seed, images=2)
    found = beam_search(captioner, features, start=START, end=END, beam=6**3, max_length=3, keep=5)
    for image, hypotheses in enumerate(found):
        best = all_captions(captioner, features.select(slice(image, image + 1)), 3)[:5]
        assert [h.word_ids for h in hypotheses] == [words for _, words in best]
        assert [h.score for h in hypotheses] == pytest.approx([score for score, _ in best])


@pytest.mark.parametrize("beam", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("parity", [False, True])
def test_batched_beam_search_equals_the_slow_one(beam, exponent, parity):
    for seed in range(4):
        captioner, features = toy(seed, images=4)
        found = beam_search(
            captioner,
            features,
            start=START,
            end=END,
            beam=beam,
            max_length=8,
            length_normalisation=exponent,
            parity=parity,
        )
        for image, hypotheses in enumerate(found):
            alone = features.select(slice(image, image + 1))
            score, words = slow_beam_search(captioner, alone, beam, 8, exponent, parity)[0]
            length = None if hypotheses[0].ended else 7
            assert hypotheses[0].word_ids == words[:length]
            assert hypotheses[0].score == pytest.approx(score)


def test_beams_keep_the_best_completed_hypotheses_in_order():
    captioner, features = toy(3, images=3)
    found = beam_search(captioner, features, start=START, end=END, beam=4, max_length=6, keep=4)
    for image, hypotheses in enumerate(found):
        alone = features.select(slice(image, image + 1))
        slow = slow_beam_search(captioner, alone, 4, 6)[:4]
        assert [h.word_ids for h in hypotheses] == [words for _, words in slow]


@pytest.mark.parametrize("images", [1, 2, 17])
def test_batched_searches_equal_one_image_at_a_time(images):
    captioner, features = toy(images, images=images)
    common = {"start": START, "end": END, "max_length": 9, "forbidden": (0, START)}
    for left, right in zip(
        greedy_search(captioner, features, **common),
        one_at_a_time(greedy_search, captioner, features, **common),
        strict=True,
    ):
        assert_same(left, right)
    for search, options in [
        (beam_search, {"beam": 3, "keep": 2}),
        (beam_search, {"beam": 3, "parity": True}),
        (diverse_beam_search, {"groups": 3, "beam": 2, "penalty": 0.7}),
        (diverse_beam_search, {"groups": 3, "beam": 2, "penalty": 0.7, "parity": True}),
    ]:
        batched = search(captioner, features, **common, **options)
        alone = one_at_a_time(search, captioner, features, **common, **options)
        for left, right in zip(batched, alone, strict=True):
            for a, b in zip(left, right, strict=True):
                assert_same(a, b)


def test_a_beam_of_one_is_greedy_search():
    captioner, features = toy(11, images=5)
    options = {"start": START, "end": END, "max_length": 7}
    beams = beam_search(captioner, features, beam=1, **options)
    for one, greedy in zip(beams, greedy_search(captioner, features, **options), strict=True):
        assert_same(one[0], greedy)


def test_log_probabilities_are_those_of_the_teacher_forced_pass():
    captioner, features = toy(4, images=3)
    for image, hypotheses in enumerate(
        beam_search(captioner, features, start=START, end=END, beam=3, max_length=6)
    ):
        best = hypotheses[0]
        alone = features.select(slice(image, image + 1))
        for t, word in enumerate([*best.word_ids, END]):
            spoken = log_probs_of(captioner, alone, [START, *best.word_ids[:t]])[word]
            assert best.log_probs[t] == pytest.approx(spoken)
        assert best.score == pytest.approx(sum(best.log_probs))


def test_forbidden_words_are_never_said():
    captioner, features = toy(5, images=4)
    options = {"start": START, "end": END, "max_length": 6, "forbidden": (1, 2, START)}
    said = {w for h in beam_search(captioner, features, beam=3, **options) for w in h[0].word_ids}
    said |= {w for h in greedy_search(captioner, features, **options) for w in h.word_ids}
    assert not said & {1, 2, START}


def test_searches_leave_dropout_as_it_was():
    captioner, features = toy(6)
    captioner.train()
    options = {"start": START, "end": END, "max_length": 6}
    first = greedy_search(captioner, features, **options)
    assert captioner.training
    assert first == greedy_search(captioner, features, **options)


def slow_diverse(captioner, features, groups, beam, longest, penalty):
    """Diverse beam search of one image, written down from the paper's equation 5."""
    live = [[(0.0, ())] for _ in range(groups)]
    completed = [[] for _ in range(groups)]
    for t in range(longest + 1):
        said: list[int] = []
        for g in range(groups):
            candidates = []
            for total, words in live[g]:
                spoken = log_probs_of(captioner, features, [START, *words])
                for word, log_prob in enumerate(spoken):
                    if t < longest or word == END:
                        score = total + log_prob
                        ranking = score - penalty * said.count(word)
                        candidates.append((ranking, score, (*words, word)))
            candidates.sort(reverse=True)
            for _, score, words in candidates[:beam]:
                if words[-1] == END:
                    completed[g].append((score, words[:-1]))
            live[g] = [(s, w) for _, s, w in candidates if w[-1] != END][:beam]
            said += [words[-1] for _, words in live[g]]
    return [max(group) for group in completed]


@pytest.mark.parametrize("penalty", [0.0, 0.5, 3.0])
def test_diverse_beam_search_equals_the_slow_one(penalty):
    for seed in range(3):
        captioner, features = toy(seed, images=3)
        found = diverse_beam_search(
            captioner,
            features,
            start=START,
            end=END,
            groups=3,
            beam=2,
            max_length=5,
            penalty=penalty,
        )
        for image, hypotheses in enumerate(found):
            alone = features.select(slice(image, image + 1))
            slow = slow_diverse(captioner, alone, 3, 2, 5, penalty)
            assert [h.word_ids for h in hypotheses] == [words for _, words in slow]


def test_groups_without_a_penalty_are_equal_and_with_one_differ():
    captioner, features = toy(2, images=2)
    options = {"start": START, "end": END, "groups": 3, "beam": 2, "max_length": 6}
    for image in diverse_beam_search(captioner, features, penalty=0.0, **options):
        assert len({h.word_ids for h in image}) == 1
    for image in diverse_beam_search(captioner, features, penalty=5.0, **options):
        assert len({h.word_ids for h in image}) > 1


def test_the_end_may_share_its_id_with_padding():
    captioner, features = toy(8, images=3)
    options = {"start": START, "end": 0, "max_length": 5}
    for greedy, beam in zip(
        greedy_search(captioner, features, **options),
        beam_search(captioner, features, beam=1, **options),
        strict=True,
    ):
        assert_same(greedy, beam[0])
        assert 0 not in greedy.word_ids


def test_draws_follow_the_distribution():
    captioner, features = toy(1, images=1, sharpness=1.0)
    memory = captioner.encode(features)
    generator = torch.Generator().manual_seed(0)
    rollout = roll_out(
        captioner, memory, drawn(generator), start=START, end=END, steps=1, rows=20_000
    )
    shares = torch.bincount(rollout.word_ids.flatten(), minlength=7) / 20_000
    expected = torch.tensor(log_probs_of(captioner, features, [START])).exp()
    assert torch.allclose(shares, expected.float(), atol=0.015)


def test_top_k_and_nucleus_cut_the_tail_off():
    log_probs = torch.tensor([[[0.5, 0.25, 0.15, 0.1]]]).log()
    draws = {
        name: {int(choose(log_probs, 0)) for _ in range(300)}
        for name, choose in {
            "top_k": drawn(top_k=2),
            "nucleus": drawn(nucleus=0.6),
            "narrow nucleus": drawn(nucleus=0.1),
            "cold": drawn(temperature=0.01),
            "forbidden": drawn(forbidden=(0, 1)),
        }.items()
    }
    assert draws == {
        "top_k": {0, 1},
        "nucleus": {0, 1},
        "narrow nucleus": {0},
        "cold": {0},
        "forbidden": {2, 3},
    }


def test_a_draw_can_be_replayed_with_gradients():
    captioner, features = toy(9, images=4)
    options = {"start": START, "end": END, "steps": 6, "rows": 2}
    torch.manual_seed(1)
    first = roll_out(captioner, captioner.encode(features), drawn(), **options)
    again = roll_out(captioner, captioner.encode(features), given(first.word_ids), **options)
    assert torch.equal(first.word_ids, again.word_ids)
    assert torch.equal(first.log_probs, again.log_probs)
    again.log_probs.sum().backward()
    assert captioner.output.weight.grad is not None


def test_nothing_follows_the_end_of_a_rollout():
    captioner, features = toy(10, images=6)
    rollout = roll_out(
        captioner, captioner.encode(features), argmax, start=START, end=END, steps=12
    )
    for word_ids, log_probs in zip(rollout.word_ids[:, 0], rollout.log_probs[:, 0], strict=True):
        if END in word_ids.tolist():
            after = word_ids.tolist().index(END) + 1
            assert not word_ids[after:].any()
            assert not log_probs[after:].any()


def test_bad_endings_are_stripped_but_never_the_whole_sentence():
    assert strip_bad_endings("a dog on a") == "a dog"
    assert strip_bad_endings("a dog and") == "a dog and"
    assert strip_bad_endings("a dog and the", also=frozenset({"and"})) == "a dog"
    assert strip_bad_endings("on the") == "on the"
    assert strip_bad_endings("a dog on ") == "a dog on "


def test_scores_are_finite_for_an_image_that_says_nothing():
    captioner, features = toy(0, images=2)
    with torch.no_grad():
        captioner.output.bias[END] += 100.0
    for hypotheses in beam_search(captioner, features, start=START, end=END, beam=3, max_length=4):
        assert hypotheses[0].word_ids == ()
        assert math.isfinite(hypotheses[0].score)


def test_feeding_the_start_at_every_step_is_a_captioner_without_memory_of_its_words():
    captioner, features = toy(5, images=3)
    vocabulary = Vocabulary((*"_abcd", "<s>", "</s>"), pad=0, start=5, end=6, unk=None)
    settings = {"method": "greedy", "max_length": 5, "feed": "start"}
    found = search_images(captioner, features, vocabulary, settings)
    fed = torch.full((3, 6), 5)
    known = captioner.readout(captioner.hidden(features, fed).values)
    expected = known.index_fill(-1, torch.tensor([0, 5]), -torch.inf).argmax(-1).tolist()
    for (caption,), ids in zip(found, expected, strict=True):
        spoken = [*ids[:5], 6]
        assert list(caption.word_ids) == spoken[: spoken.index(6)]
    with pytest.raises(CapscopeError, match="feed: start goes with method: greedy, not beam"):
        search_images(captioner, features, vocabulary, {"method": "beam", "feed": "start"})
