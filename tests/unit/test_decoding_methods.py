"""Every decoding method of the parameters against slow twins and enumerations."""

from __future__ import annotations

import itertools
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_data import tiny_folders, tiny_params
from toy_captioner import ToyCaptioner, toy

from capscope.data.vocabulary import Vocabulary
from capscope.decoding.captions import caption_record, caption_split, decode_run
from capscope.decoding.endings import BAD_ENDINGS
from capscope.decoding.hypothesis import Hypothesis
from capscope.decoding.methods import SEARCHES, search_images
from capscope.decoding.sampling import NotFiniteError, drawn_at, probabilities, sample_search
from capscope.features.visual import Features
from capscope.files import read_json
from capscope.params import merge
from capscope.training.run import train_run

VOCABULARY = Vocabulary(("<pad>", "a", "dog", "and", "<unk>", "<start>", "<end>"), 0, 5, 6, 4)
START, END, WORDS = 5, 6, (1, 2, 3)
LONGEST = 3


def log_probs_of(captioner: ToyCaptioner, features: Features, prefix: tuple[int, ...]) -> Any:
    """Log-probabilities of the word after `prefix`, the whole prefix fed again."""
    with torch.no_grad():
        hidden = captioner.hidden(features, torch.tensor([[START, *prefix]])).values[:, -1:]
        return captioner.readout(hidden).log_softmax(-1)[0, 0].numpy()


def enumerate_captions(captioner: ToyCaptioner, features: Features) -> dict[tuple[int, ...], float]:
    """Log-probability of every caption of known words, its end included."""
    found = {}
    for length in range(LONGEST + 1):
        for caption in itertools.product(WORDS, repeat=length):
            steps = [log_probs_of(captioner, features, caption[:t]) for t in range(length + 1)]
            found[caption] = sum(s[w] for s, w in zip(steps, (*caption, END), strict=True))
    return found


def decode(captioner: ToyCaptioner, features: Features, **settings: Any) -> list[list[Hypothesis]]:
    return search_images(captioner, features, VOCABULARY, {"max_length": LONGEST, **settings})


def only(features: Features, image: int) -> Features:
    return features.select(slice(image, image + 1))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_a_wide_beam_finds_the_best_of_all_captions_by_any_length_normalisation(seed, exponent):
    captioner, features = toy(seed, images=2)
    found = decode(captioner, features, beam=7**LONGEST, captions=4, length_normalisation=exponent)
    for image, hypotheses in enumerate(found):
        scores = {
            caption: total / (len(caption) + 1) ** exponent
            for caption, total in enumerate_captions(captioner, only(features, image)).items()
        }
        best = sorted(scores, key=scores.__getitem__, reverse=True)[:4]
        assert [hypothesis.word_ids for hypothesis in hypotheses] == best
        assert [h.score for h in hypotheses] == pytest.approx([scores[c] for c in best])


@pytest.mark.parametrize("seed", range(4))
def test_greedy_takes_the_likeliest_word_step_by_step(seed):
    captioner, features = toy(seed, images=3)
    for image, (hypothesis,) in enumerate(decode(captioner, features, method="greedy")):
        words: tuple[int, ...] = ()
        while len(words) < LONGEST:
            known = log_probs_of(captioner, only(features, image), words)
            best = max((*WORDS, END), key=known.__getitem__)
            if best == END:
                break
            words = (*words, best)
        assert hypothesis.word_ids == words


CUTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cold": {"temperature": 0.5},
    "hot": {"temperature": 3.0},
    "top 2": {"top_k": 2},
    "nucleus": {"nucleus": 0.7},
    "all": {"temperature": 1.5, "top_k": 3, "nucleus": 0.8},
}


def slow_distribution(
    log_probs: Any, temperature: float = 1.0, top_k: int | None = None, nucleus: float = 1.0
) -> dict[int, float]:
    """What a word is drawn from, as one would write it down."""
    weights = {word: float(np.exp(log_probs[word] / temperature)) for word in (*WORDS, END)}
    ranked = sorted(weights, key=weights.__getitem__, reverse=True)[:top_k]
    total = sum(weights[word] for word in ranked)
    kept, held = [], 0.0
    for word in ranked:
        if held >= nucleus - 1e-12:
            break
        kept.append(word)
        held += weights[word] / total
    total = sum(weights[word] for word in kept)
    return {word: weights[word] / total for word in kept}


@pytest.mark.parametrize("cut", CUTS)
def test_draws_follow_the_enumerated_distribution(cut):
    captioner, features = toy(3, images=1, sharpness=1.0)
    draws = 20_000
    uniform = torch.rand(1, draws, LONGEST, generator=torch.Generator().manual_seed(0))
    found = sample_search(
        captioner,
        features,
        start=START,
        end=END,
        max_length=LONGEST,
        uniform=uniform.double(),
        forbidden=(0, 4, START),
        **CUTS[cut],
    )[0]
    shares: dict[tuple[int, ...], float] = {}
    for hypothesis in found:
        shares[hypothesis.word_ids] = shares.get(hypothesis.word_ids, 0) + 1 / draws
    expected = {}
    for length in range(LONGEST + 1):
        for caption in itertools.product(WORDS, repeat=length):
            share = 1.0
            for t, word in enumerate((*caption, END)):
                if t < LONGEST:
                    known = log_probs_of(captioner, features, caption[:t])
                    share *= slow_distribution(known, **CUTS[cut]).get(word, 0.0)
            expected[caption] = share
    assert sum(expected.values()) == pytest.approx(1)
    for caption, share in expected.items():
        assert shares.get(caption, 0) == pytest.approx(share, abs=0.012)
        assert share > 0 or caption not in shares


def test_a_random_number_picks_the_word_at_which_the_distribution_function_exceeds_it():
    log_probs = torch.tensor([[[0.1, 0.2, 0.0, 0.7]] * 5]).log()
    uniform = torch.tensor([0.0, 0.09, 0.11, 0.3, 0.999999]).view(1, 5, 1)
    same = log_probs.expand(1, 5, 4)
    assert drawn_at(uniform)(same, 0).tolist() == [[0, 0, 1, 3, 3]]


@pytest.mark.parametrize("method", SEARCHES)
@pytest.mark.parametrize("parity", [False, True])
def test_a_batch_is_captioned_as_its_images_one_at_a_time(method, parity):
    captioner, features = toy(7, images=9)
    ids = [100 + image for image in range(9)]
    settings = {"method": method, "captions": 3, "max_length": 6, "parity": parity}
    together = search_images(captioner, features, VOCABULARY, settings, ids)
    for image, hypotheses in enumerate(together):
        (alone,) = search_images(
            captioner, only(features, image), VOCABULARY, settings, [ids[image]]
        )
        assert [h.word_ids for h in alone] == [h.word_ids for h in hypotheses]
        for one, other in zip(alone, hypotheses, strict=True):
            assert one.log_probs == pytest.approx(other.log_probs)


@pytest.mark.parametrize("method", SEARCHES)
def test_no_method_shows_a_special_word(method):
    captioner, features = toy(5, images=6)
    with torch.no_grad():
        captioner.output.bias[[0, 4, START]] += 3.0
    for parity in (False, True):
        settings = {"method": method, "captions": 4, "max_length": 8, "parity": parity}
        for hypotheses in decode(captioner, features, **settings):
            for hypothesis in hypotheses:
                assert set(hypothesis.word_ids) <= set(WORDS)
                words = len(hypothesis.word_ids) + hypothesis.ended
                assert len(hypothesis.log_probs) == words


def test_draws_belong_to_seed_and_image():
    captioner, features = toy(2, images=1, sharpness=0.5)
    same = Features(features.cells.expand(2, -1, -1))

    def draw(seed: int, ids: list[int]) -> list[tuple[int, ...]]:
        settings = {"method": "sample", "captions": 8, "seed": seed, "max_length": 6}
        found = search_images(captioner, same, VOCABULARY, settings, ids)
        return [tuple(h.word_ids for h in image) for image in found]

    first, second = draw(1, [10, 20])
    assert first != second
    assert draw(1, [20, 10]) == [second, first]
    assert draw(2, [10, 20])[0] != first


def slow_published_diverse(
    captioner: ToyCaptioner,
    features: Features,
    groups: int,
    beam: int,
    longest: int,
    penalty: float,
) -> list[tuple[int, ...]]:
    """The published diverse beam search of one image, written down from the sheet's rules."""
    live: list[list[tuple[float, tuple[int, ...]]]] = [[(0.0, ())] for _ in range(groups)]
    width = [beam] * groups
    completed: list[list[tuple[float, tuple[int, ...]]]] = [[] for _ in range(groups)]
    for _ in range(longest):
        previous: set[int] = set()
        for g in range(groups):
            if not live[g]:
                continue
            candidates = []
            for total, words in live[g]:
                known = log_probs_of(captioner, features, words).copy()
                known[list(previous)] -= penalty
                candidates += [(total + known[w], (*words, w)) for w in range(len(known))]
            fed = {words[-1] if words else START for _, words in live[g]}
            candidates.sort(reverse=True)
            taken = candidates[: width[g]]
            ended = [c for c in taken if c[1][-1] == END]
            completed[g] += [(score, words[:-1]) for score, words in ended]
            live[g] = [c for c in taken if c[1][-1] != END]
            width[g] -= len(ended)
            if g < 2:
                previous |= fed
            if not live[g]:
                break
    cut = live[0][0][1][:19] if live[0] else ()
    return [max(group)[1] if group else cut for group in completed]


@pytest.mark.parametrize("penalty", [0.0, 0.5, 3.0])
def test_published_diverse_beam_search_equals_the_slow_one(penalty):
    for seed in range(3):
        captioner, features = toy(seed, images=2)
        settings = {"groups": 3, "beam": 2, "penalty": penalty, "max_length": 6, "parity": True}
        found = decode(captioner, features, method="diverse_beam", **settings)
        for image, hypotheses in enumerate(found):
            slow = slow_published_diverse(captioner, only(features, image), 3, 2, 6, penalty)
            shown = [tuple(w for w in words if w in WORDS) for words in slow]
            assert [h.word_ids for h in hypotheses] == shown


def test_diverse_captions_come_best_first():
    captioner, features = toy(4, images=5)
    for hypotheses in decode(captioner, features, method="diverse_beam", groups=4, penalty=2.0):
        scores = [h.score for h in hypotheses]
        assert len(scores) == 4
        assert scores == sorted(scores, reverse=True)


def test_bad_endings_are_stripped_from_words_and_log_probabilities():
    captioner, features = toy(0, images=4, sharpness=0.5)
    settings = {"method": "sample", "captions": 30, "max_length": 6}
    kept = decode(captioner, features, **settings)
    for rule, endings in {"strip": BAD_ENDINGS | {"and"}, "strip_without_and": BAD_ENDINGS}.items():
        stripped = decode(captioner, features, **settings, bad_endings=rule)
        changed = 0
        for before, after in zip(chain(*kept), chain(*stripped), strict=True):
            words = [VOCABULARY.words[word] for word in before.word_ids]
            while words and words[-1] in endings:
                words.pop()
            length = len(words) or len(before.word_ids)
            assert after.word_ids == before.word_ids[:length]
            if after != before:
                changed += 1
                assert after.log_probs == before.log_probs[:length]
                assert not after.ended
        assert changed


def test_drawing_from_what_is_not_finite_is_an_error_that_says_where_to_look():
    captioner, features = toy(0, images=2)
    spoilt = Features(features.cells * torch.nan)
    with pytest.raises(NotFiniteError, match="features for NaN"):
        decode(captioner, spoilt, method="sample")
    with pytest.raises(NotFiniteError):
        probabilities(torch.full((1, 1, 4), torch.nan))


@pytest.fixture(scope="module")
def params() -> Any:
    return tiny_params()


@pytest.fixture(scope="module")
def folders(tmp_path_factory, params) -> dict[str, Path]:
    return tiny_folders(tmp_path_factory.mktemp("tiny"), params)


@pytest.fixture(scope="module")
def run(tmp_path_factory, folders, params) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    arguments = [folders["data"], folders["vocabulary"], folders["features"], params]
    train_run(out, *arguments, system="gridtd", stage="xe", seed=1)
    return out


@pytest.mark.parametrize("method", SEARCHES)
def test_a_split_has_one_entry_an_image_by_every_method(method, run, folders, params, tmp_path):
    changes = {"method": method, "captions": 2, "batch_size": 3}
    files = []
    for size in (3, 1):
        chosen = merge(params, {"decoding": {**changes, "batch_size": size}})
        files.append(tmp_path / f"{size}.json")
        decode_run(run, folders["data"], folders["features"], chosen, split="test", out=files[-1])
    entries, alone = map(read_json, files)
    assert len({entry["image_id"] for entry in entries}) == len(entries)
    others = {"greedy": 0, "beam": 1, "sample": 1, "diverse_beam": 2}[method]
    assert all(len(entry.get("others", [])) == others for entry in entries)
    assert [e["word_ids"] for e in alone] == [e["word_ids"] for e in entries]


@pytest.mark.parametrize("method", SEARCHES)
@pytest.mark.parametrize("bad_endings", ["keep", "strip"])
def test_an_image_without_a_word_has_an_empty_caption(method, bad_endings):
    captioner, features = toy(0, images=2)
    with torch.no_grad():
        captioner.output.bias[END] += 100.0
    settings = {"method": method, "beam": 1, "bad_endings": bad_endings, "max_length": 4}
    for hypotheses in decode(captioner, features, **settings):
        record = caption_record(7, hypotheses, VOCABULARY)
        assert record["caption"] == ""
        assert record["word_ids"] == []
        assert len(record["log_probs"]) == 1


def test_splits_show_their_progress_image_by_image(capsys):
    captioner, features = toy(1, images=4)

    class Store:
        def read(self, ids):
            return features.select(torch.tensor(ids))

    settings = {"method": "greedy", "max_length": 3, "batch_size": 3}
    found = list(
        caption_split(captioner, Store(), [0, 1, 2, 3], VOCABULARY, settings, progress="test")
    )
    assert [image for image, _ in found] == [0, 1, 2, 3]
    assert "4/4" in capsys.readouterr().err
