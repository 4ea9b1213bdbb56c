"""DIFNet and its base transformer against the values of the original program."""

from __future__ import annotations

import json

import pytest
import torch
from difnet_captioners import FOLDER, MODELS, captioner, close, features, load
from image_networks import Golden
from torch import Tensor

from capscope.decoding.ended_beam import EndedBeams, ended_beam_search
from capscope.importers.difnet import BUFFERS, MODES, from_original, names, to_original
from capscope.models import build
from capscope.models.base import BaseTransformer
from capscope.training.batches import CaptionBatch
from capscope.training.objectives import caption_log_probs, cross_entropy, self_critical_loss

LOG_PROBS = {"rtol": 0, "atol": 2e-5}


def batch_of(golden: Golden) -> CaptionBatch:
    ids = golden["in/caption"]
    return CaptionBatch(ids[:, :-1], ids[:, 1:], ids[:, 1:] != golden.meta["pad"])


def compare_gradients(model: BaseTransformer, expected: dict[str, Tensor]) -> None:
    theirs = names([key for key, _ in model.named_parameters()])
    found = {theirs[key]: p.grad for key, p in model.named_parameters() if p.grad is not None}
    assert set(found) == set(expected)
    for key, gradient in expected.items():
        gap = float((found[key] - gradient).abs().max())
        assert gap <= 1e-3 * float(gradient.abs().max()) + 1e-7, f"{key}: {gap}"


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_computes_what_the_original_computes(name: str) -> None:
    golden = load(name)
    model, seen = captioner(golden), {}
    calls: dict[str, int] = {}

    def record(key: str, numbered: bool):  # type: ignore[no-untyped-def]
        def hook(module: torch.nn.Module, inputs: object, output: object) -> None:
            place = f"/call{calls.setdefault(key, 0)}" if numbered else ""
            calls[key] = calls.get(key, 0) + 1
            seen[f"{key}{place}"] = output if isinstance(output, Tensor) else output[0]  # type: ignore[index]

        return hook

    model.image.register_forward_hook(record("embed_image", False))
    if "out/embed_pixel" in golden:
        model.segments.register_forward_hook(record("embed_pixel", False))
    for kind, layers in (("encoder", model.encoder), ("decoder", model.decoder)):
        for i, layer in enumerate(layers):
            layer.register_forward_hook(record(f"{kind}_layer_{i}", kind == "encoder"))
    hidden = model.hidden(features(golden), golden["in/caption"])
    encoded = model.encoded(model.project(features(golden)), features(golden))
    seen["enc_output"] = encoded.values
    seen["logits"] = model.readout(hidden.values)
    seen["logp"] = seen["logits"].log_softmax(-1)
    for key in golden.keys("out/"):
        if key == "mask_enc":
            assert torch.equal(~encoded.valid[:, None, None], golden["out/mask_enc"])
        else:
            torch.testing.assert_close(seen[key], golden[f"out/{key}"], **LOG_PROBS, msg=key)
    assert hidden.layers is not None
    pairs = zip(hidden.layers.decoder, hidden.layers.cross, strict=True)
    weights = [*hidden.layers.encoder, *(one for pair in pairs for one in pair)]
    expected = [golden[f"att/{key}"] for key in sorted(golden.keys("att/"))]
    said = golden["in/caption"] != golden.meta["pad"]
    assert len(weights) == len(expected)
    for found, given in zip(weights, expected, strict=True):
        if given.shape[2] == said.shape[1]:  # padding attends to other padding there, here not
            found, given = found.transpose(1, 2)[said], given.transpose(1, 2)[said]
        torch.testing.assert_close(found, given, rtol=0, atol=2e-5)


def test_modes_with_relevance_are_the_same_captioners() -> None:
    """The files of base and base_lrp hold the same weights; so do those of one captioner here."""
    by_mode = {load(name).meta["mode"]: load(name) for name in MODELS}
    if {"base", "base_lrp"} <= set(by_mode):
        one, other = by_mode["base"], by_mode["base_lrp"]
        assert set(one.keys("w/")) == set(other.keys("w/"))
        found, expected = captioner(one).state_dict(), captioner(other).state_dict()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", MODELS)
def test_the_xe_loss_its_gradients_and_five_steps_of_adam_are_the_originals(name: str) -> None:
    golden = load(name)
    model, shown, batch = captioner(golden), features(golden), batch_of(golden)
    loss = cross_entropy(model, shown, batch)
    torch.testing.assert_close(loss, golden["xe/loss"], rtol=1e-5, atol=0)
    loss.backward()
    compare_gradients(model, golden.weights("xe/grad/"))
    adam = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98))
    for rate, expected in zip(golden["xe/adam_lr"], golden["xe/adam_losses"], strict=True):
        adam.param_groups[0]["lr"] = float(rate)
        adam.zero_grad()
        loss = cross_entropy(model, shown, batch)
        assert loss.item() == pytest.approx(float(expected), rel=1e-3)
        loss.backward()
        adam.step()
    close(model.words.weight, golden["xe/adam_fc_after"], 1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_steps_with_caches_say_what_the_teacher_forced_pass_says(name: str) -> None:
    golden = load(name)
    model, ids = captioner(golden), golden["in/caption"]
    memory = model.encode(features(golden))
    state = model.start(memory)
    for t in range(ids.shape[1]):
        step = model.step(ids[:, t : t + 1], state, memory)
        state, said = step.state, ids[:, t] != golden.meta["pad"]
        torch.testing.assert_close(
            step.log_probs[said, 0], golden["out/logp"][said, t], **LOG_PROBS
        )


def searched(golden: Golden, beam: int, **options: object) -> EndedBeams:
    meta = golden.meta
    return ended_beam_search(
        captioner(golden),
        features(golden),
        start=meta["bos"],
        end=meta["eos"],
        beam=beam,
        steps=meta["seq_len"],
        filler=meta["unk"],
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("name", MODELS)
def test_beam_search_says_what_the_original_says(name: str) -> None:
    golden = load(name)
    beam = golden.meta["beam"]
    for stop in (False, True):
        seen: list[Tensor] = []
        found = searched(golden, beam, stop=stop, observe=seen.append)
        assert torch.equal(found.word_ids, golden["beam/ids"])
        torch.testing.assert_close(found.log_probs, golden["beam/logp"], **LOG_PROBS)
        assert torch.equal(found.word_ids[:, 0], golden["beam/best_ids"])
        torch.testing.assert_close(found.log_probs[:, 0], golden["beam/best_logp"], **LOG_PROBS)
        if not stop:
            torch.testing.assert_close(
                torch.stack(seen, 2), golden["beam/all_logp"], rtol=0, atol=2e-5
            )
    greedy = searched(golden, 1)
    assert torch.equal(greedy.word_ids[:, 0], golden["greedy/ids"])
    torch.testing.assert_close(greedy.log_probs[:, 0], golden["greedy/logp"], **LOG_PROBS)


@pytest.mark.parametrize("name", MODELS)
def test_the_self_critical_loss_and_its_gradients_are_the_originals(name: str) -> None:
    """The beam without gradient, then one teacher-forced pass with it, is the published beam."""
    golden = load(name)
    model, ids = captioner(golden), golden["beam/ids"]
    steps = ids.shape[2]
    log_probs = caption_log_probs(
        model,
        features(golden),
        ids.flatten(0, 1),
        start=golden.meta["bos"],
        end=golden.meta["eos"],
    )
    torch.testing.assert_close(log_probs.view_as(ids), golden["beam/logp"], **LOG_PROBS)
    reward = golden["scst/reward"]
    torch.testing.assert_close(reward.mean(1, keepdim=True), golden["scst/baseline"])
    advantage = (reward - golden["scst/baseline"]).flatten()
    losses = -log_probs.sum(-1) / steps * advantage
    close(losses, golden["scst/per_beam_loss"].flatten(), 1e-5)
    loss = self_critical_loss(
        log_probs, ids.flatten(0, 1), advantage, end=golden.meta["eos"], per="position"
    )
    torch.testing.assert_close(loss, golden["scst/loss"], rtol=1e-5, atol=1e-7)
    loss.backward()
    compare_gradients(model, golden.weights("scst/grad/"))


@pytest.mark.parametrize("name", MODELS)
def test_weights_go_back_to_the_originals_names(name: str) -> None:
    golden = load(name)
    model = captioner(golden)
    back = to_original(model, golden.meta["mode"])
    assert set(back) == set(golden.weights("w/"))
    alive = set(names(model.state_dict()).values())
    for key, tensor in back.items():
        assert tensor.shape == golden[f"w/{key}"].shape
        assert tensor.dtype == golden[f"w/{key}"].dtype
        if key in alive:
            assert torch.equal(tensor, golden[f"w/{key}"]), key


@pytest.mark.slow
@pytest.mark.parametrize("mode", sorted(MODES))
def test_full_size_captioners_have_the_names_and_sizes_of_the_inventory(mode: str) -> None:
    path = FOLDER / "inventory.json"
    if not path.exists():
        pytest.skip(f"fixture {path} is not here (CAPSCOPE_GOLDEN names another folder)")
    listed = json.loads(path.read_text("utf-8"))["inventory"][mode]
    entries = listed["state_dict"]
    shapes = {key: tuple(shape) for key, (shape, _) in entries.items()}
    vocabulary, hidden = shapes["decoder.word_emb.weight"]
    model = build(
        MODES[mode].captioner,
        vocabulary_size=vocabulary,
        feature_size=shapes["embed_image.0.weight"][1],
        hidden=hidden,
        padding=1,
    )
    back = to_original(model, mode)
    assert {key: tuple(tensor.shape) for key, tensor in back.items()} == shapes
    assert all(str(back[key].dtype) == f"torch.{kind}" for key, (_, kind) in entries.items())
    weights = [tensor for key, tensor in back.items() if not BUFFERS.fullmatch(key)]
    assert sum(tensor.numel() for tensor in weights) == listed["parameters"]
    again = from_original(back)
    assert all(
        torch.equal(ours, theirs)
        for ours, theirs in zip(
            model.state_dict().values(), again.state_dict().values(), strict=True
        )
    )
