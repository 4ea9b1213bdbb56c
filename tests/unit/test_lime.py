"""LIME against exact contributions, an enumeration, and captioners of every kind."""

from __future__ import annotations

import pytest
import torch
from linear_captioner import CHANNELS, VOCABULARY, LinearCaptioner
from torch import Tensor
from toy_subjects import (
    CONFIGS,
    LENGTHS,
    examples,
    regions_subject,
    some_regions,
    toy_subject,
)

from capscope.errors import CapscopeError
from capscope.explain import explainer_class
from capscope.explain.latent.masks import up_to_pairs
from capscope.explain.latent.perturbed import Perturbed
from capscope.explain.latent.published import fit_variant, word_target
from capscope.explain.latent.replacement import Constant
from capscope.explain.lime import LIME, LimeSettings, similarity
from capscope.explain.subject import Subject
from capscope.features.visual import Features
from capscope.models.captioner import Memory, State, Step


class LinearLogProbs(LinearCaptioner):
    """Its log-probabilities are linear in the cells (and no log-probabilities)."""

    def step(self, word_ids: Tensor, state: State, memory: Memory) -> Step:
        total = state["sum"] + self.embedding(word_ids)
        return Step(self.readout(total), {"sum": total}, None)


def linear_case(count: int = 6) -> tuple[Subject, Features, Tensor]:
    torch.manual_seed(2)
    subject = Subject(LinearLogProbs().eval().double(), VOCABULARY)
    cells = torch.rand(1, count, CHANNELS, dtype=torch.float64)
    return subject, Features(cells), subject.inputs(examples()[1][:1])


def contributions(subject: Subject, features: Features, inputs: Tensor, instead: Tensor) -> Tensor:
    """Return what each cell adds to the logit of each word over what stands in its place."""
    captioner = subject.captioner
    assert isinstance(captioner, LinearCaptioner)
    cells = features.cells[0]
    weights = captioner.words.weight[inputs[0, 1:]]
    added: Tensor = weights @ captioner.projection(cells - instead).T / len(cells)
    return added


@pytest.mark.parametrize("kernel", ["none", "exponential", "cosine"])
@pytest.mark.parametrize("samples", [64, 40])
@pytest.mark.parametrize("stand_in", ["zero", "mean", "minimum", "maximum"])
def test_a_linear_captioner_gets_its_exact_contributions(
    kernel: str, samples: int, stand_in: str
) -> None:
    subject, features, inputs = linear_case()
    settings = {
        "samples": samples,
        "kernel": kernel,
        "alpha": 1e-9,
        "replacement": stand_in,
    }
    found = LIME(subject, lime=settings).explain(None, features, inputs, torch.tensor([4]))
    latent = subject.captioner.project(features)[0]
    instead = {
        "zero": torch.zeros_like(latent[0]),
        "mean": latent.mean(0),
        "minimum": latent.min(0).values,
        "maximum": latent.max(0).values,
    }[stand_in]
    assert isinstance(subject.captioner, LinearCaptioner)
    weights = subject.captioner.words.weight[inputs[0, 1:]]
    expected = weights @ (latent - instead).T / len(latent)
    torch.testing.assert_close(found.grid[0], expected.detach(), atol=1e-6, rtol=1e-5)
    account = found.conservation
    torch.testing.assert_close(account["start"], account["grid"], atol=1e-6, rtol=1e-5)


def test_features_count_for_their_contribution_when_they_are_replaced_by_zero() -> None:
    subject, features, inputs = linear_case()
    settings = {"samples": 64, "alpha": 1e-9, "replacement": "zero"}
    found = LIME(subject, lime=settings).explain(None, features, inputs, torch.tensor([4]))
    expected = contributions(subject, features, inputs, torch.zeros(CHANNELS).double())
    torch.testing.assert_close(found.grid[0], expected.detach(), atol=1e-6, rtol=1e-5)


def test_lasso_and_selection_keep_the_largest_contributions() -> None:
    subject, features, inputs = linear_case()
    scale = torch.tensor([9.0, 0.1, 0.1, 7.0, 0.1, 0.1]).double()
    features = Features(features.cells * scale.view(1, -1, 1))
    for options in (
        {"selection": "largest", "selected": 2, "alpha": 1e-9},
        {"selection": "forward", "selected": 2, "alpha": 1e-9},
        {"regression": "lasso", "alpha": 0.005},
    ):
        settings = {"samples": 64, "replacement": "zero", "kernel": "none", **options}
        found = LIME(subject, lime=settings).explain(None, features, inputs, torch.tensor([4]))
        relevant = found.grid[0].abs() > 1e-3
        assert (relevant.sum(1) <= 2).all()
        assert not relevant[:, [1, 2, 4, 5]].any()


@pytest.mark.parametrize("parts", ["overlap", "class"])
def test_objects_share_what_their_regions_get_together(parts: str) -> None:
    subject, features, inputs = linear_case(4)
    box, far = [0.0, 0.0, 0.5, 0.5], [0.6, 0.6, 1.0, 1.0]
    class_ids = torch.tensor([[3, 1, 3, 1]])
    features = features._replace(boxes=torch.tensor([[box, far, box, far]]), class_ids=class_ids)
    settings = {"parts": parts, "alpha": 1e-9, "replacement": "zero"}
    found = LIME(subject, lime=settings).explain(None, features, inputs, torch.tensor([4]))
    single = contributions(subject, features, inputs, torch.zeros(CHANNELS).double())
    together = single[:, :2] + single[:, 2:]
    expected = torch.cat([together, together], 1) / 2
    torch.testing.assert_close(found.grid[0], expected.detach(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("captioner", CONFIGS)
@pytest.mark.parametrize("stand_in", ["noise", "mean"])
def test_the_same_seed_gives_the_same_relevance_whatever_the_chunks(
    captioner: str, stand_in: str
) -> None:
    subject, features = regions_subject(captioner), some_regions(5)
    inputs = subject.inputs(examples()[1])
    settings = {"samples": 20, "replacement": stand_in}
    first, again = (
        LIME(subject, lime=settings).explain(None, features, inputs, LENGTHS) for _ in range(2)
    )
    assert torch.equal(first.grid, again.grid)
    small = LIME(subject, lime={**settings, "memory_mb": 0})
    alone = small.explain(None, features, inputs, LENGTHS)
    torch.testing.assert_close(alone.grid, first.grid, atol=2e-4, rtol=1e-3)
    other = LIME(subject, lime={**settings, "seed": 2})
    assert not torch.equal(other.explain(None, features, inputs, LENGTHS).grid, first.grid)


@pytest.mark.parametrize("captioner", CONFIGS)
def test_what_all_features_together_are_worth_is_what_the_word_loses(captioner: str) -> None:
    subject = toy_subject(captioner)
    images, word_ids = examples()
    features, inputs = subject.look(images), subject.inputs(word_ids)
    found = LIME(subject, lime={"replacement": "zero"}).explain(None, features, inputs, LENGTHS)
    with torch.no_grad():
        hidden = subject.captioner.hidden(features, inputs[:, :-1]).values
        intact = subject.captioner.readout(hidden).log_softmax(-1)
        latent = torch.zeros_like(subject.captioner.project(features))
        gone = features._replace(cells=torch.zeros_like(features.cells))
        memory = subject.captioner.memory(latent, gone)
        state = subject.captioner.start(memory)
        for t in range(word_ids.shape[1]):
            step = subject.captioner.step(inputs[:, t : t + 1], state, memory)
            state = step.state
            for row, length in enumerate(LENGTHS.tolist()):
                if t < length:
                    word = inputs[row, t + 1]
                    lost = intact[row, t, word] - step.log_probs[row, 0, word]
                    start = found.conservation["start"][row, t]
                    torch.testing.assert_close(start, lost, atol=1e-5, rtol=1e-4)


def test_similarity_of_captions_is_a_target_too() -> None:
    subject, features = regions_subject(), some_regions(5)
    inputs = subject.inputs(examples()[1])
    found = LIME(subject, lime={"target": "caption", "samples": 16}).explain(
        None, features, inputs, LENGTHS
    )
    assert torch.equal(found.grid[0, 0], found.grid[0, 1])
    assert similarity([1, 2, 3], [1, 2, 3]) == pytest.approx(1)
    assert similarity([1, 1, 2], [1, 3]) == pytest.approx(2 / (5**0.5 * 2**0.5))
    assert similarity([1], [2]) == similarity([], [1]) == 0


def test_settings_that_make_no_sense_are_named() -> None:
    for wrong, message in (
        ({"target": "sentence"}, "lime.target is 'sentence'"),
        ({"parts": "cells"}, "lime.parts is 'cells'"),
        ({"samples": 1}, "lime.samples is 1"),
    ):
        with pytest.raises(CapscopeError, match=message):
            LimeSettings(**wrong)
    subject, features, inputs = linear_case()
    for wrong, message in (
        ({"replacement": "noisy"}, "unknown replacement 'noisy'"),
        ({"kernel": "box"}, "unknown kernel 'box'"),
        ({"regression": "tree"}, "unknown regression 'tree'"),
        ({"selection": "best"}, "unknown selection 'best'"),
        ({"parts": "overlap"}, "no boxes"),
        ({"parts": "class"}, "no classes"),
    ):
        with pytest.raises(CapscopeError, match=message):
            LIME(subject, lime=wrong).explain(None, features, inputs, torch.tensor([4]))


@pytest.mark.parametrize("name", ["lime1", "lime2", "lime3", "lime4", "lime5"])
@pytest.mark.slow
def test_published_variants_point_the_right_way_unless_parity_is_asked_for(name: str) -> None:
    subject, features = regions_subject(), some_regions(14)
    inputs = subject.inputs(examples()[1])
    right, again, published = (
        explainer_class(name)(subject, parity=parity).explain(None, features, inputs, LENGTHS)
        for parity in (False, False, True)
    )
    assert torch.equal(right.grid, again.grid)
    assert right.grid[1, :, -1].eq(0).all()  # padding
    if name == "lime1":  # all masks: nothing is drawn, and the first image has no padding
        torch.testing.assert_close(right.grid[0], -published.grid[0])


def test_a_published_variant_ranks_as_its_parts_do() -> None:
    subject, features = regions_subject(), some_regions(7)
    inputs = subject.inputs(examples()[1])
    found = explainer_class("lime1")(subject).explain(None, features, inputs, LENGTHS)
    masks = up_to_pairs(7)
    start, end = int(inputs[0, 0]), VOCABULARY.end
    own = features.select(slice(0, 1))
    said = Perturbed(subject.captioner, own, Constant(0.0)).search(masks, start=start, end=end)
    for t in range(4):
        y = word_target(said.log_probs, [int(inputs[0, t + 1])])
        coefficients = fit_variant(masks, y[:, None]).coefficients[0]
        expected = torch.from_numpy(-coefficients).float()
        torch.testing.assert_close(found.grid[0, t], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["lime_5obj", "lime_8obj"])
def test_variants_over_objects_give_all_regions_of_a_class_the_same(name: str) -> None:
    subject, features = regions_subject(), some_regions(9)
    inputs = subject.inputs(examples()[1])
    found = explainer_class(name)(subject).explain(None, features, inputs, LENGTHS)
    assert features.class_ids is not None
    for row, classes in enumerate(features.class_ids.tolist()):
        for one in set(classes):
            alike = found.grid[row, :, [n for n, own in enumerate(classes) if own == one]]
            assert torch.equal(alike, alike[:, :1].expand_as(alike))
            assert one >= 0 or alike.eq(0).all()
    assert found.grid[0].ne(0).any()
    published = explainer_class(name)(subject, parity=True)
    few = published.explain(None, features, inputs, LENGTHS).grid
    assert few.eq(0).all()  # images have four classes
    with pytest.raises(CapscopeError, match="no classes"):
        explainer_class(name)(subject).explain(
            None, features._replace(class_ids=None), inputs, LENGTHS
        )
    assert explainer_class(name).unfit(toy_subject()) is not None
    assert explainer_class(name).unfit(subject) is None
