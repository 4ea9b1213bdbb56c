"""Explanations of the decoders, against the original program."""

import re
from dataclasses import replace

import pytest
import torch
from image_networks import GOLDEN, Golden
from original_captioners import captioner_of, cells, close, kind_of
from torch import Tensor

from capscope.features.visual import Features
from capscope.models.captioner import SumCaptioner
from capscope.models.gridtd import GridTD
from capscope.models.published import with_doubled_bias
from capscope.relevance.backward import WordRelevance, word_relevance
from capscope.relevance.recursion import Trace
from capscope.relevance.recursion_adaptive import adaptive_lrp
from capscope.relevance.recursion_aoa import aoa_lrp
from capscope.relevance.recursion_gridtd import gridtd_lrp
from capscope.relevance.reweighting import normalise_relevance
from capscope.relevance.rules import GRADIENT_AS_PUBLISHED, LRP_AS_PUBLISHED

RELATIVE = 1e-4  # stated in the fixtures' README, of the array's maximum
KINDS = ["gridtd", "adaptive", "aoa"]
TWINS = {"gridtd": gridtd_lrp, "adaptive": adaptive_lrp, "aoa": aoa_lrp}


def stored(what: str) -> list[tuple[str, str]]:
    """Return kinds and methods (with the head, where there are heads) that have an array."""
    found = []
    for kind in KINDS:
        if (GOLDEN / f"lrp_ic/{kind}_explain.npz").exists():
            names = Golden(f"lrp_ic/{kind}_explain.npz").arrays.files
            found += [(kind, n.removesuffix(what)) for n in names if n.endswith(what)]
    return found


def each(what: str, *, only: str = "") -> pytest.MarkDecorator:
    """Run a test with each method that has an array, `only` those of some methods."""
    cases = [(kind, method) for kind, method in stored(what) if re.match(only, method)]
    return pytest.mark.parametrize(("kind", "method"), cases or [("gridtd", "lrp")])


def golden_of(kind: str) -> Golden:
    return Golden(f"lrp_ic/{kind}_explain.npz")


def family(method: str) -> str:
    """Return a method's name without the head."""
    return method.split(".")[0]


def head_of(method: str) -> int | None:
    _, dot, head = method.partition(".h")
    return int(head) if dot else None


def explainer(golden: Golden, method: str) -> SumCaptioner:
    captioner, _ = captioner_of(golden)
    if family(method) != "lrp":
        return captioner
    copy = with_doubled_bias(captioner)
    assert isinstance(copy, SumCaptioner)
    return copy


def image_features(golden: Golden, method: str) -> Features:
    stored = f"{family(method)}.image_features"
    return Features(cells(golden[stored if stored in golden else "gradient.image_features"]))


def caption_ids(golden: Golden, method: str) -> Tensor:
    """Return the explained caption (1, T + 1); it is the same for all heads."""
    names = [name for name in golden.keys(method) if name.endswith(".caption_ids")]
    return golden[method + names[0]].unsqueeze(0)


def explain(golden: Golden, method: str) -> WordRelevance:
    rules = LRP_AS_PUBLISHED if family(method) == "lrp" else GRADIENT_AS_PUBLISHED
    return word_relevance(
        explainer(golden, method),
        image_features(golden, method),
        caption_ids(golden, method),
        replace(rules, head=head_of(method)),
    )


@each(".r_words")
def test_relevance_of_preceding_words(kind: str, method: str) -> None:
    """The normalised relevance of inputs; the original leaves the rest NaN."""
    golden = golden_of(kind)
    found, expected = explain(golden, method).words[0], golden[f"{method}.r_words"]
    normalised = normalise_relevance(found) - 1
    steps = len(found)
    below = torch.ones(steps, steps).tril().bool()
    assert torch.equal(expected.isnan(), ~below)
    torch.testing.assert_close(normalised[below], expected[below], rtol=0, atol=RELATIVE)
    assert torch.equal(found[~below], torch.zeros_like(found[~below]))


@each(".r_feat")
def test_relevance_of_features(kind: str, method: str) -> None:
    """gridTD's Guided Backprop leaves out what is not active; the others' is the gradient."""
    golden = golden_of(kind)
    found = explain(golden, method).features
    if kind == "gridtd" and family(method).startswith("Guided"):
        active = image_features(golden, method).cells.unsqueeze(1) > 0
        found = torch.where(active, found, 0.0)
    close(found[0], cells(golden[f"{method}.r_feat"]), RELATIVE)


@each(".map_as_original", only="GradCam")
def test_gradcam_maps(kind: str, method: str) -> None:
    golden = golden_of(kind)
    found = explain(golden, method).features[0]
    features = image_features(golden, method).cells[0]
    cam = (features @ found.mean(1).unsqueeze(2)).squeeze(2).relu()
    cam = cam / (cam.amax(1, keepdim=True) + 1e-6)
    chosen = golden[f"{method}.map_t"]
    close(cam[chosen], golden[f"{method}.map_as_original"], RELATIVE)


STATES = {
    "h1": "h1t",
    "c1": "c1t",
    "h2": "h2t",
    "c2": "c2t",
    "h": "ht",
    "c": "ct",
    "sentinel": "st",
    "context": "context",
    "mixed": "context_hat",
    "gated": "context_aoa",
    "alpha": "alphas",
    "beta": "betas",
    "weights": "alphas",
}
"""Our names of a teacher-forced pass and the original's."""


def moments_of(captioner: SumCaptioner, features: Features, inputs: Tensor) -> dict[str, Tensor]:
    """Return all of a teacher-forced pass of one image, each with T rows."""
    found = captioner.unroll(features, inputs)
    if not isinstance(captioner, GridTD):
        return {name: tensor[0] for name, tensor in found._asdict().items()}
    steps = list(found)
    return {name: torch.cat([getattr(s, name)[0] for s in steps]) for name in steps[0]._fields}


@each(".state.predictions")
def test_states_of_the_explainers_forward(kind: str, method: str) -> None:
    golden = golden_of(kind)
    inputs = caption_ids(golden, method)[:, :-1]
    captioner, features = explainer(golden, method), image_features(golden, method)
    with torch.no_grad():
        moments = moments_of(captioner, features, inputs)
        logits = captioner.readout(captioner.hidden(features, inputs).values)[0]
        found = {STATES[name]: tensor for name, tensor in moments.items()}
        if kind == "aoa":
            found["context_aoa_linear"] = captioner.linear(moments["context"])
            found["context_aoa_gate"] = captioner.gate(moments["h"])
    found["predictions"] = logits
    names = golden.keys(f"{method}.state.")
    assert set(names) == set(found)
    for name in names:
        expected = golden[f"{method}.state.{name}"]
        if len(expected) == len(logits) + 1:
            expected = expected[1:]
        close(found[name], expected.view_as(found[name]), RELATIVE)


@each("teacherforce_ids")
@pytest.mark.parametrize("logits", ["lrp", "gradient"])
def test_logits_of_a_shortened_prefix(kind: str, method: str, logits: str) -> None:
    golden = golden_of(kind)
    captioner, features = explainer(golden, logits), image_features(golden, logits)
    with torch.no_grad():
        hidden = captioner.hidden(features, golden["teacherforce_ids"].unsqueeze(0))
        found = captioner.readout(hidden.values)
    close(found[0], golden[f"teacherforce_logits_{logits}"], RELATIVE)


PARTS = {
    "gridtd": {
        "r_img_feature_proj": "values",
        "r_global_img_feature": "pooled",
        "r_context_hat": "mixed",
        "r_context": "context",
        "r_xh1t": "below",
        "r_xh2t": "above",
        "r_h1t": "h1",
        "r_c1t": "c1",
        "r_h2t": "h2",
        "r_c2t": "c2",
    },
    "adaptive": {
        "r_img_feature_proj": "values",
        "r_global_img_feature": "pooled",
        "r_xht": "below",
        "r_ht": "h",
        "r_ct": "c",
    },
    "aoa": {
        "r_img_feature_proj": "projected",
        "r_value": "values",
        "r_global_img_feature": "pooled",
        "r_context": "context",
        "r_context_aoa": "gated",
        "r_xht": "below",
        "r_ht": "h",
        "r_ct": "c",
    },
}
"""The original's intermediate relevances and the recursions' parts."""


def part_of(kind: str, trace: Trace, name: str) -> Tensor:
    return trace.words if name == "r_word_embedding" else trace.parts[PARTS[kind][name]]


@each(".r_feat", only="lrp")
def test_every_intermediate_relevance_of_the_recursion(kind: str, method: str) -> None:
    golden = golden_of(kind)
    options = {} if head_of(method) is None else {"head": head_of(method)}
    (traces,) = TWINS[kind](
        explainer(golden, method),
        image_features(golden, method),
        caption_ids(golden, method),
        published=True,
        **options,
    )
    prefix = f"{method}.t"
    found = [m for key in golden.keys(prefix) if (m := re.match(r"(\d+)\.(r_.*)", key))]
    assert found
    for match in found:
        expected = golden[prefix + match[0]]
        part = part_of(kind, traces[int(match[1])], match[2])
        if part.dim() == expected.dim() and len(expected) == len(part) + 1:
            expected = expected[1:]  # states have a row before the first step
        close(part, expected, RELATIVE)
    for step, trace in enumerate(traces):
        close(trace.features, cells(golden[f"{method}.r_feat"])[step], RELATIVE)


def test_kinds_are_those_of_the_files() -> None:
    for kind in KINDS:
        assert kind_of(golden_of(kind)) == kind
