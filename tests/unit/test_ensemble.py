"""An ensemble decodes like one captioner whose probabilities are the members' mean."""

from pathlib import Path
from typing import Any

import pytest
import torch
from toy_captioner import toy

from capscope.decoding.beam import beam_search
from capscope.decoding.diverse import diverse_beam_search
from capscope.decoding.sampling import argmax, greedy_search, roll_out
from capscope.errors import CapscopeError
from capscope.features.visual import Features
from capscope.files import write_json, write_manifest
from capscope.models import build
from capscope.models.captioner import Captioner
from capscope.models.checkpoint import load_ensemble
from capscope.models.ensemble import Ensemble
from capscope.relevance.backward import word_relevance
from capscope.relevance.rules import LRP
from capscope.tensors import write_tensors

WORDS = {"start": 1, "end": 2}
WEIGHTS = [3.0, 1.0]


def members() -> tuple[list[Captioner], Features]:
    torch.manual_seed(0)
    first, features = toy(0, vocabulary_size=7)
    second = build("aoa", vocabulary_size=7, feature_size=5, embedding=3, hidden=4, heads=2)
    return [first, second.double().eval()], features


def sequence_probability(captioner: Captioner, features: Features, word_ids: list[int]) -> float:
    """Return log p of a caption of the first image with its end, step by step."""
    fed = torch.tensor([[WORDS["start"], *word_ids]])
    one = features.select(slice(0, 1))
    with torch.no_grad():
        logits = captioner.readout(captioner.hidden(one, fed).values).log_softmax(-1)
    targets = [*word_ids, WORDS["end"]]
    return float(sum(logits[0, t, word] for t, word in enumerate(targets)))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_probabilities_are_the_weighted_mean_of_the_members(weights: list[float] | None) -> None:
    both, features = members()
    ensemble = Ensemble(both, weights)
    shares = [0.5, 0.5] if weights is None else [0.75, 0.25]
    word_ids = torch.tensor([[1, 3, 4], [1, 5, 6], [1, 4, 4]])
    each = [m.readout(m.hidden(features, word_ids).values).softmax(-1) for m in both]
    expected = shares[0] * each[0] + shares[1] * each[1]
    hidden = ensemble.hidden(features, word_ids)
    torch.testing.assert_close(ensemble.readout(hidden.values).exp(), expected)
    picked = ensemble.readout(hidden.values, word_ids)
    torch.testing.assert_close(picked.exp(), expected.gather(2, word_ids.unsqueeze(2)).squeeze(2))
    memory = ensemble.encode(features)
    state = ensemble.start(memory)
    for t in range(3):
        step = ensemble.step(word_ids[:, t : t + 1], state, memory)
        state = step.state
        torch.testing.assert_close(step.log_probs[:, 0].exp(), expected[:, t])


def test_the_memory_is_the_same_by_way_of_the_latent_features() -> None:
    both, features = members()
    ensemble = Ensemble(both)
    whole = ensemble.encode(features)
    parts = ensemble.memory(ensemble.project(features), features)
    assert set(parts) == set(whole)
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor)


def test_a_wide_beam_finds_the_best_caption_of_the_ensemble() -> None:
    """Brute force over all captions of up to two words."""
    both, features = members()
    ensemble = Ensemble(both, WEIGHTS)
    words = [word for word in range(7) if word != WORDS["end"]]
    captions = [[], *([a] for a in words), *([a, b] for a in words for b in words)]
    best = max(captions, key=lambda c: sequence_probability(ensemble, features, c))
    found = beam_search(ensemble, features, **WORDS, beam=40, max_length=2)
    assert list(found[0][0].word_ids) == best
    assert found[0][0].score == pytest.approx(sequence_probability(ensemble, features, best))


def test_every_decoder_takes_an_ensemble() -> None:
    both, features = members()
    ensemble = Ensemble(both)
    greedy = greedy_search(ensemble, features, **WORDS, max_length=5)
    beam = beam_search(ensemble, features, **WORDS, beam=1, max_length=5)
    assert [h.word_ids for h in greedy] == [h[0].word_ids for h in beam]
    groups = diverse_beam_search(
        ensemble, features, **WORDS, groups=2, beam=2, max_length=5, penalty=0.5
    )
    assert len(groups) == len(greedy)
    rollout = roll_out(ensemble, ensemble.encode(features), argmax, **WORDS, steps=6, rows=2)
    assert torch.equal(rollout.word_ids[:, 0], rollout.word_ids[:, 1])


def test_twice_the_same_captioner_is_that_captioner() -> None:
    both, features = members()
    ensemble = Ensemble([both[1], both[1]])
    alone = beam_search(both[1], features, **WORDS, beam=3, max_length=6)
    together = beam_search(ensemble, features, **WORDS, beam=3, max_length=6)
    for one, other in zip(alone, together, strict=True):
        assert one[0].word_ids == other[0].word_ids
        assert one[0].score == pytest.approx(other[0].score)
    hidden = ensemble.hidden(features, torch.tensor([[1, 3]] * 3))
    expected = both[1].hidden(features, torch.tensor([[1, 3]] * 3)).attention
    torch.testing.assert_close(hidden.attention, expected.mean(2))


def test_attention_is_left_out_where_a_member_has_none() -> None:
    both, features = members()
    assert Ensemble(both).hidden(features, torch.tensor([[1, 3]] * 3)).attention is None


def test_an_ensemble_is_not_explained() -> None:
    both, features = members()
    with pytest.raises(CapscopeError, match="explain its members one by one"):
        word_relevance(Ensemble([both[1]]), features, torch.tensor([[1, 3, 2]] * 3), LRP)


@pytest.mark.parametrize(
    ("weights", "message"),
    [([1.0], "weights .* of 2"), ([1.0, 0.0], "positive"), ([1.0, float("inf")], "positive")],
)
def test_wrong_weights_are_refused(weights: list[float], message: str) -> None:
    with pytest.raises(CapscopeError, match=message):
        Ensemble(members()[0], weights)


def test_members_of_different_vocabularies_are_refused() -> None:
    with pytest.raises(CapscopeError, match=r"one vocabulary; its members know \[7, 9\] words"):
        Ensemble([toy(0, 7)[0], toy(0, 9)[0]])
    with pytest.raises(CapscopeError, match="at least one"):
        Ensemble([])


def run_folder(
    folder: Path, name: str, words: list[str], features: dict[str, Any], **config: Any
) -> Path:
    from capscope.data.vocabulary import Vocabulary

    vocabulary = Vocabulary(("<pad>", *words, "<unk>", "<start>", "<end>"), 0, 4, 5, 3)
    config = {"vocabulary_size": len(vocabulary), "feature_size": 5, **config}
    captioner = build(name, **config)
    folder.mkdir()
    write_tensors(folder / "model.safetensors", captioner.state_dict())
    info = {
        "captioner": name,
        "config": config,
        "vocabulary": vocabulary.to_json(),
        "vocabulary_sha256": vocabulary.sha256,
        "features": features,
        "decoding": {},
    }
    write_json(folder / "model.json", info)
    write_manifest(folder, "run", params={})
    return folder


def test_runs_are_loaded_as_an_ensemble_if_they_fit_together(tmp_path: Path) -> None:
    grid = {"network": "vgg16", "grid": [2, 2]}
    small = {"embedding": 3, "hidden": 4}
    aoa = run_folder(tmp_path / "aoa", "aoa", ["a", "dog"], grid, heads=2, **small)
    other = run_folder(tmp_path / "other", "adaptive", ["a", "dog"], grid, attention=4, **small)
    cats = run_folder(tmp_path / "cats", "aoa", ["a", "cat"], grid, heads=2, **small)
    wide = {**grid, "grid": [3, 3]}
    regions = run_folder(tmp_path / "wide", "aoa", ["a", "dog"], wide, heads=2, **small)

    run = load_ensemble([aoa, other], WEIGHTS)
    assert isinstance(run.captioner, Ensemble)
    assert run.captioner.shares == [0.75, 0.25]
    assert not run.captioner.training
    assert not isinstance(load_ensemble([aoa]).captioner, Ensemble)
    with pytest.raises(CapscopeError, match=r"aoa and .*cats have different vocabularies"):
        load_ensemble([aoa, cats])
    with pytest.raises(CapscopeError, match=r"wide have different visual features \(grid: \[2, 2"):
        load_ensemble([aoa, regions])
