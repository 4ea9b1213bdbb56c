"""Explanations of gridTD's decoder, against the original program."""

import re

import pytest
import torch
from image_networks import Golden
from original_captioners import captioner_of, cells, close
from torch import Tensor

from capscope.features.visual import Features
from capscope.models.gridtd import GridTD
from capscope.models.published import with_doubled_bias
from capscope.relevance.backward import WordRelevance, word_relevance
from capscope.relevance.recursion import gridtd_lrp
from capscope.relevance.reweighting import normalise_relevance
from capscope.relevance.rules import GRADIENT_AS_PUBLISHED, LRP_AS_PUBLISHED

RELATIVE = 1e-4  # stated in the fixtures' README, of the array's maximum
GRADIENT_FAMILY = ["gradient", "GuidedBackpropagate", "GradCam", "GuidedGradCam"]


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden("lrp_ic/gridtd_explain.npz")


def explainer(golden: Golden, method: str) -> GridTD:
    captioner, _ = captioner_of(golden)
    return with_doubled_bias(captioner) if method == "lrp" else captioner


def image_features(golden: Golden, method: str) -> Features:
    stored = f"{method}.image_features"
    return Features(cells(golden[stored if stored in golden else "gradient.image_features"]))


def explain(golden: Golden, method: str) -> WordRelevance:
    rules = LRP_AS_PUBLISHED if method == "lrp" else GRADIENT_AS_PUBLISHED
    word_ids = golden[f"{method}.caption_ids"].unsqueeze(0)
    captioner = explainer(golden, method)
    return word_relevance(captioner, image_features(golden, method), word_ids, rules)


def words_agree(found: Tensor, expected: Tensor) -> None:
    """Compare the normalised relevance of inputs; the original leaves the rest NaN."""
    normalised = normalise_relevance(found) - 1
    steps = len(found)
    below = torch.ones(steps, steps).tril().bool()
    assert torch.equal(expected.isnan(), ~below)
    torch.testing.assert_close(normalised[below], expected[below], rtol=0, atol=RELATIVE)
    assert torch.equal(found[~below], torch.zeros_like(found[~below]))


@pytest.mark.parametrize("method", ["lrp", *GRADIENT_FAMILY])
def test_relevance_of_preceding_words(golden: Golden, method: str) -> None:
    found = explain(golden, method)
    words_agree(found.words[0], golden[f"{method}.r_words"])


@pytest.mark.parametrize("method", ["lrp", "gradient", "GradCam"])
def test_relevance_of_features(golden: Golden, method: str) -> None:
    found = explain(golden, method)
    close(found.features[0], cells(golden[f"{method}.r_feat"]), RELATIVE)


@pytest.mark.parametrize("method", ["GuidedBackpropagate", "GuidedGradCam"])
def test_guided_gradients_of_features(golden: Golden, method: str) -> None:
    found = explain(golden, method).features
    features = image_features(golden, method).cells
    guided = torch.where(features.unsqueeze(1) > 0, found, 0.0)
    close(guided[0], cells(golden[f"{method}.r_feat"]), RELATIVE)


def test_gradcam_maps(golden: Golden) -> None:
    found = explain(golden, "GradCam").features[0]
    features = image_features(golden, "GradCam").cells[0]
    cam = (features @ found.mean(1).unsqueeze(2)).squeeze(2).relu()
    cam = cam / (cam.amax(1, keepdim=True) + 1e-6)
    chosen = golden["GradCam.map_t"]
    close(cam[chosen], golden["GradCam.map_as_original"], RELATIVE)


@pytest.mark.parametrize("method", ["lrp", "gradient"])
def test_states_of_the_explainers_forward(golden: Golden, method: str) -> None:
    word_ids = golden[f"{method}.caption_ids"].unsqueeze(0)
    captioner, features = explainer(golden, method), image_features(golden, method)
    with torch.no_grad():
        moments = list(captioner.unroll(features, word_ids[:, :-1]))
        hidden = captioner.hidden(features, word_ids[:, :-1])
        close(captioner.readout(hidden.values)[0], golden[f"{method}.state.predictions"], RELATIVE)
    for ours, theirs in {
        "h1": "h1t",
        "c1": "c1t",
        "h2": "h2t",
        "c2": "c2t",
        "sentinel": "st",
        "context": "context",
        "mixed": "context_hat",
        "alpha": "alphas",
        "beta": "betas",
    }.items():
        found = torch.stack([getattr(moment, ours)[0, 0] for moment in moments])
        expected = golden[f"{method}.state.{theirs}"]
        if len(expected) == len(found) + 1:
            expected = expected[1:]
        close(found, expected.view_as(found), RELATIVE)


@pytest.mark.parametrize("method", ["lrp", "gradient"])
def test_logits_of_a_shortened_prefix(golden: Golden, method: str) -> None:
    captioner, features = explainer(golden, method), image_features(golden, method)
    with torch.no_grad():
        hidden = captioner.hidden(features, golden["teacherforce_ids"].unsqueeze(0))
        logits = captioner.readout(hidden.values)
    close(logits[0], golden[f"teacherforce_logits_{method}"], RELATIVE)


def test_every_intermediate_relevance_of_the_recursion(golden: Golden) -> None:
    word_ids = golden["lrp.caption_ids"].unsqueeze(0)
    (traces,) = gridtd_lrp(
        explainer(golden, "lrp"), image_features(golden, "lrp"), word_ids, discard_recurrence=True
    )
    names = {
        "r_img_feature_proj": "values",
        "r_global_img_feature": "pooled",
        "r_word_embedding": "words",
        "r_context_hat": "mixed",
        "r_context": "context",
        "r_xh1t": "below",
        "r_xh2t": "above",
        "r_h1t": "h1",
        "r_c1t": "c1",
        "r_h2t": "h2",
        "r_c2t": "c2",
    }
    stored = [match for key in golden.keys("lrp.t") if (match := re.match(r"(\d+)\.(r_.*)", key))]
    assert stored
    for match in stored:
        found = getattr(traces[int(match[1])], names[match[2]])
        expected = golden[f"lrp.t{match[0]}"]
        # States have a row before the first step, which nothing is passed on to.
        close(found, expected[1:] if match[2][3:] in ("1t", "2t") else expected, RELATIVE)
    for step, trace in enumerate(traces):
        close(trace.features, cells(golden["lrp.r_feat"])[step], RELATIVE)
