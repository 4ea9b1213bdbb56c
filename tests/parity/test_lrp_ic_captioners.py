"""All captioners, forward and gradients, against the original program (grid and regions)."""

import json

import pytest
import torch
from image_networks import Golden
from original_captioners import (
    KINDS,
    RELEVANCE_KINDS,
    captioner_of,
    close,
    features_of,
    kind_of,
)
from PIL import Image as Pillow
from torch import Tensor
from torch.nn.functional import cross_entropy

from capscope.data.images import preprocess
from capscope.features.visual import Features
from capscope.importers.lrp_ic import CNN_PREFIX, to_original
from capscope.models.adaptive import Adaptive
from capscope.models.captioner import Captioner, SumCaptioner
from capscope.models.gridtd import GridTD
from capscope.relevance.reweighting import reweight

ABSOLUTE = 1e-5  # stated in the fixtures' README for logits and losses
GRADIENT = 1e-4  # of the largest entry of each gradient


@pytest.fixture(params=KINDS)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(f"lrp_ic/{request.param}.npz")


def equal(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=ABSOLUTE, check_dtype=False)


def inputs_and_targets(golden: Golden) -> tuple[Tensor, Tensor]:
    steps = int(golden["caplens"].max()) - 1
    return golden["caps"][:, :steps], golden["caps"][:, 1 : steps + 1]


def live_features(golden: Golden, network: torch.nn.Module | None) -> Features:
    """Return features that are still attached to the image network."""
    if network is None:
        return features_of(golden)
    return Features(network(golden["x"]).flatten(2).transpose(1, 2))


def gradients_agree(
    golden: Golden, prefix: str, captioner: SumCaptioner, network: torch.nn.Module | None
) -> None:
    """Compare the gradients of all stored parameters.

    The bias of the keys has none (a constant on all keys does not change the softmax): what the
    original stores is noise.
    """
    gradients = {name: p.grad for name, p in captioner.named_parameters() if p.grad is not None}
    grid = golden["w.img_projector.weight"].dim() == 4
    found = to_original(kind_of(golden).removesuffix("_bu"), gradients, grid=grid)
    if network is not None:
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None
            found[CNN_PREFIX + name] = parameter.grad
    names = golden.keys(prefix)
    assert names
    for name in names:
        if name == "decoder_k_proj.bias":
            torch.testing.assert_close(found[name], golden[prefix + name], rtol=0, atol=1e-6)
        else:
            close(found[name], golden[prefix + name], GRADIENT)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.endswith("_bu")])
def test_image_features_are_those_of_the_original_network(kind: str) -> None:
    golden = Golden(f"lrp_ic/{kind}.npz")
    height, width = golden["x"].shape[-2:]
    if height == width:
        pictures = [Pillow.fromarray(pixels) for pixels in golden.arrays["img_uint8"]]
        equal(torch.stack([preprocess(p, width) for p in pictures]), golden["x"])
    _, network = captioner_of(golden)
    assert network is not None
    with torch.no_grad():
        features = network(golden["x"])
    equal(features, golden["feat"])
    equal(features.mean((2, 3)), golden["feat_avg"])


def attention_of(
    captioner: Captioner, features: Features, word_ids: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Return the attention weights of a teacher-forced pass, and the sentinel's if there are."""
    with torch.no_grad():
        weights = captioner.hidden(features, word_ids).attention
        betas = None
        if isinstance(captioner, GridTD):
            betas = torch.cat([m.beta for m in captioner.unroll(features, word_ids)], 1)
        elif isinstance(captioner, Adaptive):
            betas = captioner.unroll(features, word_ids).beta
    assert weights is not None
    return weights, betas


def test_teacher_forced_logits_and_attention(golden: Golden) -> None:
    captioner, _ = captioner_of(golden)
    word_ids, _ = inputs_and_targets(golden)
    with torch.no_grad():
        hidden = captioner.hidden(features_of(golden), word_ids)
    equal(captioner.readout(hidden.values), golden["logits"])
    alphas, betas = attention_of(captioner, features_of(golden), word_ids)
    assert ("alphas" in golden) == (betas is not None)
    if betas is not None:
        equal(alphas, golden["alphas"])
        equal(betas, golden["betas"])


def test_cross_entropy_and_its_gradients(golden: Golden) -> None:
    captioner, network = captioner_of(golden)
    word_ids, targets = inputs_and_targets(golden)
    hidden = captioner.hidden(live_features(golden, network), word_ids)
    logits = captioner.readout(hidden.values)
    loss = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=0)
    equal(loss.detach(), golden["xe_loss"])
    loss.backward()
    gradients_agree(golden, "grad_xe.", captioner, network)


def sampled_log_probs(
    captioner: Captioner, features: Features, word_ids: Tensor, mask: Tensor
) -> Tensor:
    """Feed masked rows their own best word from the fourth input on."""
    with torch.no_grad():
        memory = captioner.encode(features)
        state, outputs = captioner.start(memory), []
        for t in range(word_ids.shape[1]):
            fed = word_ids[:, t]
            if t > 2:
                fed = torch.where(mask.bool(), outputs[-1].argmax(-1), fed)
            step = captioner.step(fed.unsqueeze(1), state, memory)
            state = step.state
            outputs.append(step.log_probs[:, 0])
    return torch.stack(outputs, 1)


def test_scheduled_sampling(golden: Golden) -> None:
    captioner, _ = captioner_of(golden)
    word_ids, _ = inputs_and_targets(golden)
    found = sampled_log_probs(captioner, features_of(golden), word_ids, golden["ss_mask"])
    equal(found, golden["ss_logits"].log_softmax(-1))


@pytest.mark.parametrize("kind", KINDS)
def test_scheduled_sampling_where_the_model_disagrees_with_the_caption(kind: str) -> None:
    model, case = Golden(f"lrp_ic/{kind}.npz"), Golden("lrp_ic/scheduled_sampling2.npz")
    captioner, _ = captioner_of(model)
    features = features_of(model).select(case[f"{kind}/x_index"])
    steps = case[f"{kind}/ss_logits"].shape[1]
    word_ids = case[f"{kind}/caps"][:, :steps]
    found = sampled_log_probs(captioner, features, word_ids, case[f"{kind}/ss_mask"])
    equal(found, case[f"{kind}/ss_logits"].log_softmax(-1))
    plain = captioner.readout(captioner.hidden(features, word_ids).values)
    equal(plain.detach(), case[f"{kind}/plain_logits"])


@pytest.mark.parametrize("kind", KINDS)
def test_attention_of_teacher_forcing_and_of_greedy_samples(kind: str) -> None:
    model, maps = Golden(f"lrp_ic/{kind}.npz"), Golden("lrp_ic/attention_maps.npz")
    captioner, _ = captioner_of(model)
    word_ids, _ = inputs_and_targets(model)
    sampled = torch.cat([model["caps"][:, :1], model["sample_greedy_ids"]], 1)
    for name, ids in (("tf", word_ids), ("sample_greedy", sampled)):
        expected = maps[f"{kind}/{name}_alphas"]
        alphas, betas = attention_of(captioner, features_of(model), ids[:, : expected.shape[1]])
        equal(alphas, expected)
        if betas is not None:
            equal(betas, maps[f"{kind}/{name}_betas"].view_as(betas))


def neutral_words(golden: Golden) -> Tensor:
    """Return which word ids are stop words or special tokens."""
    stop_words = json.loads(str(Golden("lrp_ic/text_metrics.npz").arrays["stopwords"]))
    listed = {*stop_words, "<start>", "<end>", "<pad>", "<unk>"}
    neutral = torch.zeros(len(golden["w.fc.bias"]), dtype=torch.bool)
    neutral[[index for word, index in golden.meta["word_map"].items() if word in listed]] = True
    return neutral


@pytest.mark.parametrize("kind", RELEVANCE_KINDS)
def test_lrp_inference_forward_losses_and_gradients(kind: str) -> None:
    golden = Golden(f"lrp_ic/{kind}.npz")
    captioner, network = captioner_of(golden)
    word_ids, targets = inputs_and_targets(golden)
    summands = captioner.summands(live_features(golden, network), word_ids)
    found = reweight(captioner, summands, neutral_words(golden))
    equal(found.logits.detach(), golden["lrp_logits"])
    equal(found.hidden, golden["lrp_w_hidden"])
    equal(found.context, golden["lrp_w_context"])
    equal(found.weighted.detach(), golden["lrp_weighted_logits"])
    standard, reweighted = (
        cross_entropy(x.flatten(0, 1), targets.flatten(), ignore_index=0)
        for x in (found.logits, found.weighted)
    )
    equal(standard.detach(), golden["lrp_loss_standard"])
    equal(reweighted.detach(), golden["lrp_loss_weighted"])
    total = standard + reweighted
    equal(total.detach(), golden["lrp_loss_total"])
    total.backward()
    gradients_agree(golden, "grad_lrp.", captioner, network)
