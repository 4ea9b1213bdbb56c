"""Schedules, batches and objectives against what one would write down for one caption."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_captioner import toy

from capscope.data.captions import EncodedCaptions
from capscope.data.vocabulary import Vocabulary
from capscope.decoding.sampling import drawn, roll_out
from capscope.training.batches import CaptionBatch, epoch_batches, frame, image_of_row
from capscope.training.objectives import (
    caption_log_probs,
    cross_entropy,
    scheduled_sampling,
    self_critical_loss,
)
from capscope.training.schedules import Schedule
from capscope.training.stages.xe import from_the_fourth_on

START, END = 5, 6


def captions(lengths: list[int], longest: int) -> EncodedCaptions:
    labels = np.zeros((len(lengths), longest), np.uint16)
    for row, length in zip(labels, lengths, strict=True):
        row[:length] = np.arange(1, length + 1)
    count = len(lengths)
    return EncodedCaptions(
        image_ids=np.arange(10, 10 + count),
        labels=labels,
        lengths=np.array(lengths),
        first=np.arange(1, count + 1),
        last=np.arange(1, count + 1),
        vocabulary_sha256="",
    )


def test_one_cycle_rises_and_falls():
    schedule = Schedule("one_cycle", 0.01, 101)
    rates = [schedule.at(step) for step in range(101)]
    top = rates.index(max(rates))
    assert rates[0] == pytest.approx(0.001)
    assert max(rates) == pytest.approx(0.01)
    assert top == 20
    assert rates[-1] == pytest.approx(1e-6)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_plateau_shrinks_after_two_epochs_without_a_better_score():
    schedule = Schedule("plateau", 1.0, 10)
    rates = []
    for score in [1.0, 0.9, 0.8, 0.7, 2.0, 2.0, 1.5]:
        schedule.observe(score)
        rates.append(schedule.at(0))
    assert rates == pytest.approx([1, 1, 0.8, 0.8, 0.8, 0.8, 0.64])


def test_plateau_stops_shrinking_at_the_smallest_rate():
    schedule = Schedule("plateau", 3e-5, 10)
    for _ in range(20):
        schedule.observe(0.0)
    assert schedule.at(0) == pytest.approx(3e-5 * 0.8**2)


def test_a_constant_rate_is_constant():
    schedule = Schedule("constant", 0.5, 10)
    for _ in range(5):
        schedule.observe(0.0)
    assert {schedule.at(step) for step in range(10)} == {0.5}


def test_references_are_framed_by_start_and_end():
    vocabulary = Vocabulary((*"_abcd", "<s>", "</s>"), pad=0, start=5, end=6, unk=None)
    batch = frame(captions([2, 4, 1], 6), np.array([0, 1]), vocabulary)
    assert batch.inputs.tolist() == [[5, 1, 2, 0, 0], [5, 1, 2, 3, 4]]
    assert batch.targets.tolist() == [[1, 2, 6, 0, 0], [1, 2, 3, 4, 6]]
    assert batch.valid.tolist() == [[True] * 3 + [False] * 2, [True] * 5]


def test_the_end_is_learnt_where_it_shares_its_id_with_padding():
    vocabulary = Vocabulary(("_", *"abcd"), pad=0, start=None, end=0, unk=None)
    batch = frame(captions([2, 4], 4), np.array([0, 1]), vocabulary)
    assert batch.inputs.tolist() == [[0, 1, 2, 0, 0], [0, 1, 2, 3, 4]]
    assert batch.valid.sum(1).tolist() == [3, 5]


def test_rows_know_their_image():
    encoded = captions([1, 1, 1, 1], 2)
    grouped = EncodedCaptions(
        image_ids=np.array([7, 9]),
        labels=encoded.labels,
        lengths=encoded.lengths,
        first=np.array([1, 4]),
        last=np.array([3, 4]),
        vocabulary_sha256="",
    )
    assert image_of_row(grouped).tolist() == [7, 7, 7, 9]


def test_an_epoch_shows_every_reference_once_in_an_order_of_its_own():
    lengths = np.random.default_rng(0).integers(3, 20, 1000)
    first = epoch_batches(lengths, 16, seed=1, epoch=0)
    again = epoch_batches(lengths, 16, seed=1, epoch=0)
    other = epoch_batches(lengths, 16, seed=1, epoch=1)
    assert sorted(np.concatenate(first)) == list(range(1000))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert {len(batch) for batch in first} <= {16, 1000 % 16}
    padded = sum(len(batch) * lengths[batch].max() for batch in first)
    assert padded < 1.1 * lengths.sum()


def a_batch(images: int, longest: int = 5) -> CaptionBatch:
    torch.manual_seed(1)
    lengths = torch.randint(1, longest + 1, (images,))
    places = torch.arange(longest + 1)
    words = torch.randint(1, 5, (images, longest))
    inputs = torch.cat([torch.full((images, 1), START), words], 1)
    targets = torch.cat([words, torch.zeros(images, 1, dtype=torch.long)], 1)
    targets = targets.scatter(1, lengths.unsqueeze(1), END)
    return CaptionBatch(inputs, targets, places <= lengths.unsqueeze(1))


def test_cross_entropy_is_the_mean_over_all_words_of_the_batch():
    captioner, features = toy(1, images=4)
    batch = a_batch(4)
    logits = captioner.readout(captioner.hidden(features, batch.inputs).values)
    total, words = 0.0, 0
    for image in range(4):
        for t in range(batch.inputs.shape[1]):
            if batch.valid[image, t]:
                total -= float(logits.detach()[image, t].log_softmax(-1)[batch.targets[image, t]])
                words += 1
    found = cross_entropy(captioner, features, batch)
    assert found.item() == pytest.approx(total / words)


def test_scheduled_sampling_without_own_words_is_teacher_forcing():
    captioner, features = toy(2, images=4)
    batch = a_batch(4)
    nobody = torch.zeros_like(batch.inputs, dtype=torch.bool)
    log_probs, fed = scheduled_sampling(captioner, features, batch.inputs, nobody)
    assert torch.equal(fed, batch.inputs)
    logits = captioner.readout(captioner.hidden(features, batch.inputs).values)
    torch.testing.assert_close(log_probs, logits.log_softmax(-1))


def test_scheduled_sampling_feeds_own_words_from_the_fourth_input_on():
    captioner, features = toy(3, images=4)
    batch = a_batch(4)
    references = torch.tensor([True, True, False, True])
    everybody = from_the_fourth_on(references, batch.inputs.shape[1])
    log_probs, fed = scheduled_sampling(captioner, features, batch.inputs, everybody)
    own = log_probs.argmax(-1)
    assert torch.equal(fed[:, :3], batch.inputs[:, :3])
    assert torch.equal(fed[2], batch.inputs[2])
    assert torch.equal(fed[0, 3:], own[0, 2:-1])
    whole = cross_entropy(captioner, features, batch, everybody)
    again = captioner.readout(captioner.hidden(features, fed).values).log_softmax(-1)
    spoken = again.gather(-1, batch.targets.unsqueeze(-1)).squeeze(-1)[batch.valid]
    torch.testing.assert_close(whole, -spoken.mean())


def test_scheduled_sampling_feeds_drawn_words_where_it_is_asked_to():
    captioner, features = toy(3, images=4)
    batch = a_batch(4)
    torch.manual_seed(5)
    where = torch.rand(batch.inputs.shape) < 0.5
    where[:, 0] = False
    torch.manual_seed(6)
    log_probs, fed = scheduled_sampling(captioner, features, batch.inputs, where, drawn())
    assert torch.equal(fed[~where], batch.inputs[~where])
    torch.manual_seed(6)
    memory = captioner.encode(features)
    state = captioner.start(memory)
    for t in range(fed.shape[1]):  # the words of the step before, drawn for the whole batch
        if where[:, t].any():
            said = torch.multinomial(step.log_probs[:, 0].exp(), 1)[:, 0]  # noqa: F821
            assert torch.equal(fed[where[:, t], t], said[where[:, t]])
        step = captioner.step(fed[:, t : t + 1], state, memory)
        state = step.state
        torch.testing.assert_close(log_probs[:, t], step.log_probs[:, 0])


def draw(captioner, features, steps=6):
    torch.manual_seed(3)
    with torch.no_grad():
        return roll_out(
            captioner, captioner.encode(features), drawn(), start=START, end=END, steps=steps
        )


def test_log_probabilities_of_a_draw_are_found_again_in_one_pass():
    captioner, features = toy(4, images=8)
    rollout = draw(captioner, features)
    word_ids = rollout.word_ids[:, 0]
    found = caption_log_probs(captioner, features, word_ids, start=START, end=END)
    spoken = (torch.cumsum(word_ids == END, 1) - (word_ids == END).long()) == 0
    torch.testing.assert_close(found[spoken], rollout.log_probs[:, 0][spoken])


def test_the_self_critical_loss_counts_words_up_to_the_end():
    log_probs = torch.tensor([[-1.0, -2.0, -4.0], [-8.0, -16.0, -32.0]])
    word_ids = torch.tensor([[1, END, 0], [2, 3, 4]])
    reward = torch.tensor([1.0, -0.5])
    expected = -((-1 - 2) * 1.0 + (-8 - 16 - 32) * -0.5) / 5
    assert float(self_critical_loss(log_probs, word_ids, reward, end=END)) == expected
