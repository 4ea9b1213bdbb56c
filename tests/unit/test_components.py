"""Noise in one component of a captioner: where it goes in, and what captions lose by it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy_context import toy_context
from toy_subjects import CONFIGS, examples, regions_subject, some_regions

from capscope.benchmarks.components import measure_components
from capscope.errors import CapscopeError
from capscope.explain.latent.components import (
    COMPONENTS,
    PUBLISHED,
    Noise,
    NoisyCaptioner,
    components_of,
    ranges_of,
)
from capscope.models.captioner import Captioner


def spoken(captioner: Captioner, steps: int = 4) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return the log-probabilities of each step of the examples, and the last state."""
    inputs = regions_subject().inputs(examples()[1])
    with torch.no_grad():
        memory = captioner.encode(some_regions())
        state, found = captioner.start(memory), []
        for t in range(steps):
            step = captioner.step(inputs[:, t : t + 1], state, memory)
            state = step.state
            found.append(step.log_probs)
    return found, state


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_that_stays_as_it_is_changes_nothing(component: str) -> None:
    captioner = regions_subject().captioner
    plain, _ = spoken(captioner)
    same, _ = spoken(NoisyCaptioner(captioner, component, lambda values: values))
    assert all(torch.equal(a, b) for a, b in zip(plain, same, strict=True))
    never, _ = spoken(NoisyCaptioner(captioner, component, torch.zeros_like, steps=()))
    assert component == "VF" or all(map(torch.equal, plain, never))


def test_a_changed_component_is_what_the_rest_of_the_captioner_reads() -> None:
    captioner = regions_subject().captioner
    gone, state = spoken(NoisyCaptioner(captioner, "HT", torch.zeros_like), 1)
    assert state["h1"].eq(0).all()  # the noise stays in the state
    gone, state = spoken(NoisyCaptioner(captioner, "CT", torch.zeros_like), 1)
    expected = captioner.readout(state["h2"]).log_softmax(-1)
    torch.testing.assert_close(gone[0], expected)
    shifted, _ = spoken(NoisyCaptioner(captioner, "WE", lambda values: values + 1))
    latent, _ = spoken(NoisyCaptioner(captioner, "VF", lambda values: values * 2))
    plain = captioner.project(some_regions())
    with torch.no_grad():
        captioner.embedding.weight.add_(1)
    again, _ = spoken(captioner)
    torch.testing.assert_close(shifted, again)
    with torch.no_grad():
        captioner.embedding.weight.sub_(1)
        captioner.projection.weight.mul_(2)
        captioner.projection.bias.mul_(2)
    torch.testing.assert_close(captioner.project(some_regions()), 2 * plain)
    torch.testing.assert_close(latent, spoken(captioner)[0])


def test_only_the_asked_steps_are_changed_and_every_caption_counts_anew() -> None:
    captioner = regions_subject().captioner
    plain, _ = spoken(captioner)
    noisy = NoisyCaptioner(captioner, "CT", torch.zeros_like, steps=[2])
    for _ in range(2):
        found, _ = spoken(noisy)
        same = [torch.equal(a, b) for a, b in zip(plain, found, strict=True)]
        assert same == [True, True, False, False]  # the state remembers


def test_noise_stays_within_its_bounds_and_dimensions_and_repeats_with_its_seed() -> None:
    values = torch.zeros(2, 3, 4)
    low, high = torch.full((4,), -0.5), torch.full((4,), 1.0)
    first, again = (Noise(2.0, low, high, 3, 2)(values) for _ in range(2))
    assert torch.equal(first, again)
    assert first[..., 2:].eq(0).all()
    assert first[..., :2].ne(0).all()
    assert float(first.min()) >= -0.5
    assert float(first.max()) <= 1


def test_ranges_are_those_of_the_values_that_were_seen() -> None:
    captioner = regions_subject().captioner
    inputs = regions_subject().inputs(examples()[1])
    found = ranges_of(captioner, some_regions(), inputs, list(COMPONENTS))
    latent = captioner.project(some_regions())
    torch.testing.assert_close(found["VF"].low, latent.amin((0, 1)))
    words = captioner.embedding(inputs[:, :-1])
    torch.testing.assert_close(found["WE"].high, words.amax((0, 1)))
    assert found["WE"].deviation == pytest.approx(float(words.detach().std(correction=0)))
    assert found["HT"].low.abs().max() <= 1


def test_what_a_captioner_lacks_is_left_out_and_what_nobody_has_refused() -> None:
    found = {name: components_of(regions_subject(name).captioner, COMPONENTS) for name in CONFIGS}
    assert found["gridtd"] == list(COMPONENTS)
    assert all(components[0] == "VF" for components in found.values())
    assert "HT" not in found["rnn"]
    with pytest.raises(CapscopeError, match="unknown component 'XX'"):
        components_of(regions_subject().captioner, ["XX"])


@pytest.mark.parametrize("published", [None, *PUBLISHED])
def test_captions_are_scored_with_noise_and_without(tmp_path: Path, published: str | None) -> None:
    context = toy_context(tmp_path)
    settings = {
        **context.settings["components"],
        "sigmas": [1e-9, 3.0],
        "components": ["VF", "CT"],
        "published": published,
    }
    rows = measure_components(context, settings, resamples=20, seed=1)
    found = {(row.explainer, row.measure): row for row in rows}
    again = measure_components(context, settings, resamples=20, seed=1)
    assert [row[:9] for row in rows if row.value == row.value] == [
        row[:9] for row in again if row.value == row.value
    ]
    assert "CIDEr" in {measure for name, measure in found if name == "captioner"}
    for component in ("VF", "CT"):
        if published is None:  # published bounds cut values of this captioner
            assert found[component, "changed sigma 1e-09"].value == 0
            assert found[component, "same ROUGE-L sigma 1e-09"].value == pytest.approx(1)
        assert 0 <= found[component, "changed sigma 3"].value <= 1
        for n in range(1, 5):
            assert (component, f"same BLEU-{n} sigma 3") in found
