"""gridTD, forward and gradients, against the original program (grid and region features)."""

import json

import pytest
import torch
from image_networks import Golden
from original_gridtd import captioner_of, close, features_of
from torch import Tensor
from torch.nn.functional import cross_entropy

from capscope.features.visual import Features
from capscope.importers.lrp_ic import CNN_PREFIX, PLAIN, STACKED
from capscope.models.gridtd import GridTD
from capscope.relevance.reweighting import inference_weights

ABSOLUTE = 1e-5  # stated in the fixtures' README for logits and losses
GRADIENT = 1e-4  # of the largest entry of each gradient


@pytest.fixture(params=["gridtd", "gridtd_bu"])
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
    golden: Golden, prefix: str, captioner: GridTD, network: torch.nn.Module | None
) -> None:
    ours = {theirs: name for name, theirs in PLAIN.items()}
    found = {name: parameter.grad for name, parameter in captioner.named_parameters()}
    for name, (first, second) in STACKED.items():
        gradient = found[name]
        assert gradient is not None
        rows = golden[f"w.{first}"].shape[0]
        found[first], found[second] = gradient[:rows], gradient[rows:]
        ours |= {first: first, second: second}
    if network is not None:
        for name, parameter in network.named_parameters():
            found[CNN_PREFIX + name] = parameter.grad
            ours[CNN_PREFIX + name] = CNN_PREFIX + name
    names = golden.keys(prefix)
    assert names
    for name in names:
        gradient, expected = found[ours[name]], golden[prefix + name]
        assert gradient is not None, name
        close(gradient.reshape(expected.shape), expected, GRADIENT)


def test_image_features_are_those_of_the_original_network() -> None:
    golden = Golden("lrp_ic/gridtd.npz")
    _, network = captioner_of(golden)
    assert network is not None
    with torch.no_grad():
        features = network(golden["x"])
    equal(features, golden["feat"])
    equal(features.mean((2, 3)), golden["feat_avg"])


def test_teacher_forced_logits_and_attention(golden: Golden) -> None:
    captioner, _ = captioner_of(golden)
    word_ids, _ = inputs_and_targets(golden)
    with torch.no_grad():
        hidden = captioner.hidden(features_of(golden), word_ids)
        moments = list(captioner.unroll(features_of(golden), word_ids))
    equal(captioner.readout(hidden.values), golden["logits"])
    equal(torch.cat([moment.alpha for moment in moments], 1), golden["alphas"])
    equal(torch.cat([moment.beta for moment in moments], 1), golden["betas"])
    assert hidden.attention is not None
    equal(hidden.attention, golden["alphas"])


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
    captioner: GridTD, features: Features, word_ids: Tensor, mask: Tensor
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


@pytest.mark.parametrize("kind", ["gridtd", "gridtd_bu"])
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


@pytest.mark.parametrize("kind", ["gridtd", "gridtd_bu"])
def test_attention_of_teacher_forcing_and_of_greedy_samples(kind: str) -> None:
    model, maps = Golden(f"lrp_ic/{kind}.npz"), Golden("lrp_ic/attention_maps.npz")
    captioner, _ = captioner_of(model)
    word_ids, _ = inputs_and_targets(model)
    sampled = torch.cat([model["caps"][:, :1], model["sample_greedy_ids"]], 1)
    for name, ids in (("tf", word_ids), ("sample_greedy", sampled)):
        alphas = maps[f"{kind}/{name}_alphas"]
        with torch.no_grad():
            moments = list(captioner.unroll(features_of(model), ids[:, : alphas.shape[1]]))
        equal(torch.cat([moment.alpha for moment in moments], 1), alphas)
        betas = maps[f"{kind}/{name}_betas"].reshape(*alphas.shape[:2], 1)
        equal(torch.cat([moment.beta for moment in moments], 1), betas)


def neutral_words(golden: Golden) -> Tensor:
    """Return which word ids are stop words or special tokens."""
    stop_words = json.loads(str(Golden("lrp_ic/text_metrics.npz").arrays["stopwords"]))
    listed = {*stop_words, "<start>", "<end>", "<pad>", "<unk>"}
    neutral = torch.zeros(len(golden["w.fc.bias"]), dtype=torch.bool)
    neutral[[index for word, index in golden.meta["word_map"].items() if word in listed]] = True
    return neutral


def test_lrp_inference_forward_losses_and_gradients(golden: Golden) -> None:
    captioner, network = captioner_of(golden)
    word_ids, targets = inputs_and_targets(golden)
    features = live_features(golden, network)
    moments = list(captioner.unroll(features, word_ids, late_sentinel=True))
    mixed = torch.cat([moment.mixed for moment in moments], 1)
    h2 = torch.cat([moment.h2 for moment in moments], 1)
    logits = captioner.readout(mixed + h2)
    weights = inference_weights(h2, mixed, captioner.words, logits, neutral_words(golden))
    weighted = captioner.readout(weights[0] * h2 + weights[1] * mixed)
    equal(logits.detach(), golden["lrp_logits"])
    equal(weights[0], golden["lrp_w_hidden"])
    equal(weights[1], golden["lrp_w_context"])
    equal(weighted.detach(), golden["lrp_weighted_logits"])
    standard, reweighted = (
        cross_entropy(x.flatten(0, 1), targets.flatten(), ignore_index=0)
        for x in (logits, weighted)
    )
    equal(standard.detach(), golden["lrp_loss_standard"])
    equal(reweighted.detach(), golden["lrp_loss_weighted"])
    total = standard + reweighted
    equal(total.detach(), golden["lrp_loss_total"])
    total.backward()
    gradients_agree(golden, "grad_lrp.", captioner, network)
