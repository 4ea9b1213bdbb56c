"""Explainers against exact contributions, brute force and plain autograd."""

from __future__ import annotations

import pytest
import torch
from linear_captioner import SIZE, VOCABULARY, linear_subject
from torch import nn
from toy_subjects import (
    BATCH,
    BLIND,
    CONFIGS,
    LENGTHS,
    ON_A_GRID,
    PAIRS,
    WORDS,
    examples,
    explain,
    home,
    logits_of,
    regions_subject,
    some_regions,
    toy_subject,
)

from capscope.errors import CapscopeError
from capscope.explain import explainer_class
from capscope.explain.controls import InitialDecoder, RandomDecoder
from capscope.explain.subject import Subject
from capscope.models import CAPTIONERS


@pytest.mark.parametrize("name", ["lrp", "gradient_x_input", "gradient_lrp"])
def test_pixels_of_a_linear_model_equal_what_each_pixel_adds_to_the_logit(name: str) -> None:
    subject = linear_subject()
    images, word_ids = examples()
    inputs = subject.inputs(word_ids)
    found = explain(name, subject).pixels
    whole = logits_of(subject, subject.look(images), inputs)
    for row in range(SIZE):
        for column in range(SIZE):
            without = images.clone()
            without[:, :, row, column] = 0
            added = whole - logits_of(subject, subject.look(without), inputs)
            for n, length in enumerate(LENGTHS.tolist()):
                torch.testing.assert_close(
                    found[n, :length, row, column], added[n, :length], atol=2e-5, rtol=1e-3
                )


@pytest.mark.parametrize("name", ["lrp", "gradient_x_input", "gradient_lrp"])
def test_cells_and_words_of_a_linear_model_get_their_exact_contributions(name: str) -> None:
    subject = linear_subject()
    captioner = subject.captioner
    images, word_ids = examples()
    inputs, cells = subject.inputs(word_ids), subject.look(images).cells
    found = explain(name, subject)
    weights = captioner.words.weight
    for n, length in enumerate(LENGTHS.tolist()):
        for t in range(length):
            vector = weights[inputs[n, t + 1]]
            from_cells = captioner.projection(cells[n]) @ vector / cells.shape[1]
            torch.testing.assert_close(found.grid[n, t], from_cells, atol=1e-5, rtol=1e-4)
            for i in range(WORDS):
                spoken = captioner.embedding.weight[inputs[n, i]] @ vector
                expected = float(spoken.detach()) if i <= t else 0.0
                assert float(found.words[n, t, i]) == pytest.approx(expected, abs=1e-5)


def test_lrp_of_a_linear_model_conserves_relevance_down_to_the_pixels() -> None:
    account = explain("lrp", linear_subject()).conservation
    torch.testing.assert_close(account["start"], account["grid"] + account["words"])
    torch.testing.assert_close(account["network"], account["grid"])
    torch.testing.assert_close(account["pixels"], account["grid"], atol=1e-5, rtol=1e-4)


def test_gradcam_of_a_linear_model_is_the_positive_part_of_each_cells_contribution() -> None:
    subject = linear_subject()
    cam, contributions = explain("gradcam", subject), explain("lrp", subject)
    torch.testing.assert_close(cam.grid, contributions.grid.clamp(min=0), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["gradient_x_input", "gradcam"])
def test_gradients_of_gridtd_equal_plain_autograd_word_by_word(name: str) -> None:
    subject = toy_subject()
    images, word_ids = examples()
    inputs = subject.inputs(word_ids)
    found = explain(name, subject)
    for t in range(WORDS):
        pixels = images.clone().requires_grad_()
        cells = subject.network(pixels)
        cells.retain_grad()
        features = subject.look(images)._replace(cells=cells)
        values = subject.captioner.hidden(features, inputs[:, :-1]).values
        subject.captioner.readout(values)[torch.arange(BATCH), t, inputs[:, t + 1]].sum().backward()
        if name == "gradient_x_input":
            expected = (cells.grad * cells).sum(-1)
            image = (pixels.grad * pixels).sum(1)
        else:
            weighted = cells.grad.mean(1, keepdim=True) * cells
            expected = torch.relu(weighted[..., : subject.network.channels].sum(-1))
            image = nn.functional.interpolate(
                expected.view(BATCH, 1, 2, 2), (SIZE, SIZE), mode="bilinear"
            )
            image = image[:, 0] * 4 / SIZE**2
        for n, length in enumerate(LENGTHS.tolist()):
            if t < length:
                torch.testing.assert_close(found.grid[n, t], expected[n], atol=1e-6, rtol=1e-4)
                torch.testing.assert_close(found.pixels[n, t], image[n], atol=1e-6, rtol=1e-4)


def test_attention_is_what_the_captioner_attends_to() -> None:
    subject = toy_subject()
    images, word_ids = examples()
    attended = subject.captioner.hidden(subject.look(images), subject.inputs(word_ids)[:, :-1])
    found = explain("attention", subject)
    assert found.grid[0].equal(attended.attention[0].detach())
    assert found.words is None


def test_attention_of_several_heads_is_their_mean_or_that_of_one() -> None:
    subject = toy_subject("aoa")
    images, word_ids = examples()
    heads = subject.captioner.hidden(subject.look(images), subject.inputs(word_ids)[:, :-1])
    count = heads.attention.shape[2]
    assert count > 1
    each = [explain("attention", subject, head=head).grid for head in range(count)]
    for head, one in enumerate(each):
        assert one[0].equal(heads.attention[0, :, head].detach())
    torch.testing.assert_close(explain("attention", subject).grid, torch.stack(each).mean(0))
    with pytest.raises(CapscopeError, match=f"head {count} does not exist: AoA has {count}"):
        explain("attention", subject, head=count)


@pytest.mark.parametrize("name", ["attention", "attention_lrp", "attention_rollout"])
@pytest.mark.parametrize("captioner", BLIND)
def test_attention_of_a_captioner_without_any_is_an_error_that_says_so(
    name: str, captioner: str
) -> None:
    subject = toy_subject(captioner)
    message = f"{type(subject.captioner).__name__} has no attention"
    with pytest.raises(CapscopeError, match=message):
        explain(name, subject)


def test_the_feature_norm_is_the_same_for_every_word() -> None:
    subject = toy_subject()
    found = explain("feature_norm", subject)
    images, _ = examples()
    norm = subject.look(images).cells[..., : subject.network.channels].norm(dim=-1)
    for t in range(WORDS):
        torch.testing.assert_close(found.grid[0, t], norm[0])
        torch.testing.assert_close(found.pixels[0, t], found.pixels[0, 0])


@pytest.mark.parametrize("name", ["random_decoder", "initial_decoder"])
def test_a_random_decoder_leaves_the_trained_one_alone_and_is_repeatable(name: str) -> None:
    subject = toy_subject()
    before = {name: value.clone() for name, value in subject.captioner.state_dict().items()}
    first, second = explain(name, subject), explain(name, subject)
    assert all(value.equal(before[name]) for name, value in subject.captioner.state_dict().items())
    assert first.pixels.equal(second.pixels)
    assert not torch.allclose(first.grid, explain("lrp", subject).grid)


def test_random_decoders_forget_every_weight() -> None:
    subject = toy_subject()
    trained = dict(subject.captioner.named_parameters())
    drawn = dict(RandomDecoder(subject).explained().named_parameters())
    initial = dict(InitialDecoder(subject).explained().named_parameters())
    for name, value in trained.items():
        assert (drawn[name] != value).all(), name
        assert not initial[name].equal(value), name


def test_a_random_decoder_has_weights_as_large_as_the_trained_ones() -> None:
    subject = toy_subject()
    with torch.no_grad():
        subject.captioner.words.weight.mul_(7).add_(3)
    weight = subject.captioner.words.weight
    drawn = RandomDecoder(subject).explained().words.weight
    error = 5 * weight.std() / weight.numel() ** 0.5
    assert abs(drawn.mean() - weight.mean()) < error
    assert abs(drawn.std() - weight.std()) < error


def test_raw_attention_is_enlarged_in_place_and_keeps_its_sum() -> None:
    found = explain("attention", toy_subject())
    torch.testing.assert_close(found.pixels.sum((-2, -1)), found.grid.sum(-1))
    quadrants = found.pixels.unflatten(-1, (2, -1)).unflatten(-3, (2, -1)).sum((-3, -1))
    assert quadrants[0, 0].flatten().argmax() == found.grid[0, 0].argmax()


@pytest.mark.parametrize(("name", "captioner"), PAIRS)
def test_every_explainer_gives_maps_of_all_words_and_zeros_beyond_the_caption(
    name: str, captioner: str
) -> None:
    subject = toy_subject(captioner)
    found = explain(name, subject, epsilon=0.01, steps=2)
    assert found.grid.shape == (BATCH, WORDS, 4)
    assert found.pixels.shape == (BATCH, WORDS, SIZE, SIZE)
    assert found.pixels.isfinite().all()
    assert found.grid[1, 2:].eq(0).all()
    assert found.pixels[1, 2:].eq(0).all()
    assert found.grid[1, :2].ne(0).any()
    if found.words is not None:
        assert found.words.shape == (BATCH, WORDS, WORDS)
        assert found.words.triu(1).eq(0).all()


@pytest.mark.parametrize("captioner", ["base", "difnet"])
def test_alpha_beta_lrp_in_double_precision_is_that_in_single_but_for_rounding(
    captioner: str,
) -> None:
    subject = toy_subject(captioner)
    single, double = (
        explain("alpha_beta_lrp", subject, precision=name) for name in ("float32", "float64")
    )
    for found, exact in ((single.grid, double.grid), (single.words, double.words)):
        assert exact.dtype == torch.float32
        torch.testing.assert_close(found, exact, rtol=0, atol=5e-2 * float(exact.abs().max()))
    assert not torch.equal(single.grid, double.grid)


@pytest.mark.parametrize("name", ON_A_GRID)
def test_a_caption_is_explained_alike_alone_and_in_a_batch(name: str) -> None:
    subject = toy_subject(home(name))
    images, word_ids = examples()
    # Divisors near 0 make differences of rounding large in single precision.
    options = {"precision": "float64"} if name == "alpha_beta_lrp" else {"steps": 4}
    together = explain(name, subject, epsilon=0.01, **options)
    alone = explainer_class(name)(subject, 0.01, **options).explain(
        images[1:2],
        subject.look(images[1:2]),
        subject.inputs(word_ids[1:2, :2]),
        LENGTHS[1:2],
    )
    torch.testing.assert_close(alone.grid[0], together.grid[1, :2], atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(alone.pixels[0], together.pixels[1, :2], atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize(("name", "captioner"), PAIRS)
def test_regions_that_are_padding_get_nothing(name: str, captioner: str) -> None:
    subject, features = regions_subject(captioner), some_regions()
    inputs = subject.inputs(examples()[1])
    found = explainer_class(name)(subject, steps=2).explain(None, features, inputs, LENGTHS)
    assert found.pixels is None
    assert found.grid.isfinite().all()
    assert found.grid[1, :, -1].eq(0).all()
    assert found.grid.ne(0).any() or name in ("gradcam", "guided_gradcam")  # all rectified away


@pytest.mark.parametrize("name", ON_A_GRID)
def test_without_images_explanations_end_at_the_visual_features(name: str) -> None:
    subject = toy_subject(home(name))
    images, word_ids = examples()
    blind = Subject(subject.captioner, VOCABULARY)
    features = subject.look(images)
    found = explainer_class(name)(blind).explain(None, features, blind.inputs(word_ids), LENGTHS)
    assert found.pixels is None
    with pytest.raises(CapscopeError, match="no network"):
        explainer_class("lrp")(blind).explain(images, features, blind.inputs(word_ids), LENGTHS)


def test_every_captioner_is_among_those_explained_here() -> None:
    assert set(CONFIGS) == set(CAPTIONERS)


def test_an_unknown_explainer_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(CapscopeError, match="lrp, attention, attention_lrp"):
        explainer_class("magic")
