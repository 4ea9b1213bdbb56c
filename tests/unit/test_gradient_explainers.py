"""Gradient methods against plain autograd with rectifiers replaced, and sums over a fine path."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from linear_captioner import linear_subject
from torch import Tensor, nn
from toy_subjects import (
    CONFIGS,
    LENGTHS,
    TRANSFORMERS,
    WORDS,
    examples,
    explain,
    logits_of,
    regions_subject,
    some_regions,
    toy_subject,
)

from capscope.explain import explainer_class
from capscope.explain.subject import Subject
from capscope.features.visual import Features
from capscope.relevance import operations


class GuidedRectifier(torch.autograd.Function):
    """A rectifier written as Springenberg et al. 2015 define its way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradients[0] * (gradients[0] > 0) * (x > 0)


class Guided(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return GuidedRectifier.apply(x)


def slow_gradients(subject: Subject, t: int) -> tuple[Tensor, Tensor]:
    """Return gradients of word t at cells (B, N, D) and pixels (B, 3, S, S), by autograd."""
    images, word_ids = examples()
    pixels = images.clone().requires_grad_()
    cells = subject.network(pixels)
    cells.retain_grad()
    features = subject.look(images)._replace(cells=cells)
    logits_of(subject, features, subject.inputs(word_ids))[:, t].sum().backward()
    return cells.grad, pixels.grad


def guided_twin(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """Return the subject with every rectifier replaced; the plain operations are patched."""
    monkeypatch.setattr(operations, "relu", GuidedRectifier.apply)
    twin = Subject(subject.captioner, subject.vocabulary, deepcopy(subject.extractor))
    for name, module in list(twin.network.network.named_children()):
        if isinstance(module, nn.ReLU):
            setattr(twin.network.network, name, Guided())
    return twin


def said(values: Tensor, t: int) -> Tensor:
    """Return the rows of those captions that have a word t."""
    return values[t < LENGTHS]


def compare(found: Tensor, expected: Tensor, t: int) -> None:
    torch.testing.assert_close(said(found[:, t], t), said(expected, t), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("captioner", CONFIGS)
def test_the_gradient_is_that_of_autograd(captioner: str) -> None:
    subject = toy_subject(captioner)
    found = explain("gradient", subject)
    for t in range(WORDS):
        cells, pixels = slow_gradients(subject, t)
        compare(found.grid, subject.activations(cells).sum(-1), t)
        compare(found.pixels, pixels.sum(1), t)


@pytest.mark.parametrize("captioner", CONFIGS)
def test_guided_backprop_is_autograd_with_guided_rectifiers(
    captioner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = toy_subject(captioner)
    found, plain = explain("guided_backprop", subject), explain("gradient", subject)
    assert not torch.allclose(found.pixels, plain.pixels)
    rectified = captioner in ("gridtd", "adaptive", "aoa", *TRANSFORMERS)
    assert torch.allclose(found.grid, plain.grid) != rectified
    twin = guided_twin(subject, monkeypatch)
    for t in range(WORDS):
        cells, pixels = slow_gradients(twin, t)
        compare(found.grid, twin.activations(cells).sum(-1), t)
        compare(found.pixels, pixels.sum(1), t)


@pytest.mark.parametrize("captioner", CONFIGS)
def test_guided_gradcam_is_guided_backprop_where_gradcam_is(
    captioner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = toy_subject(captioner)
    found, cam = explain("guided_gradcam", subject), explain("gradcam", subject)
    guided = explain("guided_backprop", subject)
    torch.testing.assert_close(found.grid, guided.grid * cam.grid)
    torch.testing.assert_close(found.pixels, guided.pixels * cam.pixels)


@pytest.mark.parametrize("captioner", CONFIGS)
def test_gradcam_weights_channels_by_the_mean_gradient_of_the_regions_there_are(
    captioner: str,
) -> None:
    subject, features = regions_subject(captioner), some_regions()
    inputs = subject.inputs(examples()[1])
    found = explainer_class("gradcam")(subject).explain(None, features, inputs, LENGTHS).grid
    cells = features.cells.clone().requires_grad_()
    picked = logits_of(subject, features._replace(cells=cells), inputs)
    for t in range(WORDS):
        (gradient,) = torch.autograd.grad(picked[:, t].sum(), cells, retain_graph=True)
        mean = torch.stack(
            [g[there].mean(0) for g, there in zip(gradient, features.valid, strict=True)]
        )
        compare(found, (features.cells @ mean.unsqueeze(2)).squeeze(2).relu(), t)


def test_words_get_the_gradient_summed_over_the_embedding() -> None:
    subject = toy_subject()
    images, _ = examples()
    word_ids = torch.tensor([[1, 2, 3, 4]])  # no word twice: rows of the table are positions
    inputs, features = subject.inputs(word_ids), subject.look(images[:1])
    found = explainer_class("gradient")(subject).explain(None, features, inputs, torch.tensor([4]))
    table = subject.captioner.embedding.weight
    for t in range(WORDS):
        (gradient,) = torch.autograd.grad(logits_of(subject, features, inputs)[0, t], table)
        torch.testing.assert_close(found.words[0, t], gradient[inputs[0, :-1]].sum(1))


def test_integrated_gradients_of_a_linear_model_are_gradient_times_input() -> None:
    subject = linear_subject()
    for steps in (1, 3):
        found = explain("integrated_gradients", subject, steps=steps)
        expected = explain("gradient_x_input", subject)
        torch.testing.assert_close(found.grid, expected.grid, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found.pixels, expected.pixels, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("captioner", CONFIGS)
def test_integrated_gradients_add_up_to_what_the_logit_gains(captioner: str) -> None:
    subject = toy_subject(captioner)
    bent = captioner in TRANSFORMERS  # by normalisation, near the way's start
    account = explain("integrated_gradients", subject, steps=32).conservation
    assert account["start"].abs().max() > 1e-3
    ways = [("start", "grid", 3e-4), ("network", "pixels", 1e-3)]  # rectifiers have corners
    if captioner == "difnet":
        ways = ways[:1]  # pixels change its segments, too, which the method holds fixed
    for gained, arrived, close in ways:
        torch.testing.assert_close(
            account[arrived], account[gained], atol=3e-2 if bent else close, rtol=2e-3
        )


def test_the_gain_is_from_zero_activations_and_from_the_mean_colour() -> None:
    subject = toy_subject()
    images, word_ids = examples()
    inputs, features = subject.inputs(word_ids), subject.look(images)
    empty = features.cells.clone()
    empty[..., : subject.network.channels] = 0
    starts = {"start": Features(empty), "network": subject.look(torch.zeros_like(images))}
    account = explain("integrated_gradients", subject, steps=1).conservation
    with torch.no_grad():
        whole = logits_of(subject, features, inputs)
        for place, start in starts.items():
            gained = whole - logits_of(subject, start, inputs)
            for t in range(WORDS):
                compare(account[place], gained[:, t], t)


@pytest.mark.slow
def test_integrated_gradients_equal_the_mean_of_many_gradients_on_the_way() -> None:
    subject = toy_subject()
    images, word_ids = examples()
    inputs = subject.inputs(word_ids)
    found = explain("integrated_gradients", subject, steps=64)
    points = (torch.arange(150) + 0.5) / 150
    features = subject.look(images)
    start = features.cells.clone()
    start[..., : subject.network.channels] = 0
    for t in (0, WORDS - 1):
        grid, picture = torch.zeros_like(start), torch.zeros_like(images)
        for point in points:
            cells = torch.lerp(start, features.cells, point).requires_grad_()
            picked = logits_of(subject, features._replace(cells=cells), inputs)[:, t]
            grid += torch.autograd.grad(picked.sum(), cells)[0] / len(points)
            pixels = (point * images).requires_grad_()
            seen = features._replace(cells=subject.network(pixels))
            picked = logits_of(subject, seen, inputs)[:, t]
            picture += torch.autograd.grad(picked.sum(), pixels)[0] / len(points)
        for one, other in (
            (found.grid, (grid * (features.cells - start)).sum(-1)),
            (found.pixels, (picture * images).sum(1)),
        ):
            error = said(one[:, t] - other, t).abs().max()
            assert error < 0.03 * said(other, t).abs().max()


@pytest.mark.parametrize("name", ["gradient", "gradient_x_input", "gradcam", "lrp"])
def test_one_head_carries_a_part_of_what_all_heads_carry(name: str) -> None:
    subject, features = regions_subject("aoa"), some_regions()
    inputs = subject.inputs(examples()[1])

    def grid(head: int | None) -> Tensor:
        method = explainer_class(name)(subject, head=head)
        return method.explain(None, features, inputs, LENGTHS).grid

    heads = [grid(head) for head in range(subject.captioner.attention.heads)]
    assert not any(torch.allclose(one, grid(None)) for one in heads)
    assert not torch.allclose(heads[0], heads[1])
