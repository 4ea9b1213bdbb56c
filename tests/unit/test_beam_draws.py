"""Self-critical training with the captions of a beam and their mean as baseline, as DIFNet's."""

from typing import Any

import numpy as np
import pytest
import torch
from test_stage_objectives import DRAWS, END, LONGEST, START, corpus_of
from toy_captioner import toy

from capscope.decoding.ended_beam import ended_beam_search
from capscope.features.visual import Features
from capscope.models import build
from capscope.training.objectives import caption_log_probs
from capscope.training.stages import build_stage

SETTINGS = {**DRAWS, "draw": "beam", "baseline": "mean"}


@pytest.mark.parametrize("per", ["word", "position"])
def test_the_loss_is_that_of_the_beam_against_its_mean(per):
    captioner, features = toy(1, images=3)
    stage: Any = build_stage("scst", captioner, corpus_of(features), {**SETTINGS, "per": per})
    outcome = stage.step(np.array([2, 0]))
    shown = features.select(torch.tensor([2, 0]))
    found = ended_beam_search(
        captioner,
        shown,
        start=START,
        end=END,
        beam=3,
        steps=LONGEST + 1,
        forbidden=(0, 4, START),
    )
    word_ids, spoken = stage._draw(shown, 3)  # log-probabilities among the words that may be said
    assert torch.equal(word_ids, found.word_ids)
    total, words = 0.0, 0
    for place, image in enumerate([2, 0]):
        rows = found.word_ids[place].tolist()
        rewards = [float(stage.reward.score([row], [image])[0]) for row in rows]
        for row, log_probs, reward in zip(rows, spoken[3 * place :], rewards, strict=False):
            total -= float(log_probs.sum()) * (reward - sum(rewards) / 3)
            words += row.index(END) + 1 if END in row else len(row)
    divisor = words if per == "word" else found.word_ids.numel()
    assert outcome.loss.item() == pytest.approx(total / divisor, rel=1e-4)
    assert outcome.loss.requires_grad


def test_captioners_that_fold_captions_encode_each_image_once():
    torch.manual_seed(1)
    features = Features(torch.randn(3, 4, 5))
    model = build("base", vocabulary_size=7, feature_size=5, hidden=8, heads=2, feed_forward=8)
    model.eval()
    stage: Any = build_stage("scst", model, corpus_of(features), SETTINGS)
    word_ids, log_probs = stage._draw(features, 3)
    alone = caption_log_probs(
        model,
        features.select(torch.arange(3).repeat_interleave(3)),
        word_ids.flatten(0, 1),
        start=START,
        end=END,
        forbidden=stage.forbidden,
    )
    torch.testing.assert_close(log_probs, alone)
    log_probs.sum().backward()
    assert model.words.weight.grad is not None
