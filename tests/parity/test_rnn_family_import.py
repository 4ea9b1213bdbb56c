"""State dicts of the original: all its names and shapes, its encoder, the course's own check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from image_networks import GOLDEN, Golden
from recurrent_captioners import SPECIAL, captioner_of
from torch import Tensor

from capscope.cli.importing import command as import_command
from capscope.data.images import IMAGENET_MEAN, IMAGENET_STD
from capscope.features.classifier import cut
from capscope.features.grid import GridExtractor
from capscope.features.visual import Features
from capscope.importers.rnn_family import CELLS, from_original, to_original
from capscope.models.checkpoint import load_run
from capscope.models.from_images import FromImages, pass_noise
from capscope.training.batches import CaptionBatch
from capscope.training.objectives import cross_entropy

PUBLISHED = {"rnn": 150.6090393066, "lstm": 146.3161468505, "attention_lstm": 8.0156393051}
"""Losses that the course expects of models whose parameters are all filled alike."""
SIZES = {"V": 3, "W": 30, "H": 40, "N": 10, "L": 13}
"""Words, their vectors, states, captions and their length in that check."""


@pytest.fixture(scope="module")
def listed() -> dict[str, Any]:
    path = GOLDEN / "rnn_family" / "state_dict_keys.json"
    if not path.exists():
        pytest.skip(f"fixture {path} is not here (CAPSCOPE_GOLDEN names another folder)")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.fixture(scope="module")
def state(listed: dict[str, Any]) -> dict[str, Tensor]:
    """Return weights of all names; those that are listed twice are the same tensor."""
    generator = torch.Generator().manual_seed(0)
    shared: dict[str, Tensor] = {}
    found = {}
    for name, shape, kind in listed["state_dict"]:
        dtype = getattr(torch, kind.removeprefix("torch."))
        own = name.replace("model.backbone.", "model.cnn.")
        if own not in shared:
            value = torch.rand(shape, generator=generator) + 0.5
            shared[own] = value.to(dtype)
        found[name] = shared[own] if shared[own].shape == tuple(shape) else torch.zeros(shape)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_a_state_dict_with_all_names_of_the_original_is_a_run(
    name: str, listed: dict[str, Any], state: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "model.pt")
    size = listed["sizes"]["V"]
    words = [*SPECIAL, *(f"word{i}" for i in range(len(SPECIAL), size))]
    (tmp_path / "words.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    arguments = ["rnn_family", "--checkpoint", tmp_path / "model.pt"]
    arguments += ["--vocabulary", tmp_path / "words.json", "--captioner", name]
    done = CliRunner().invoke(import_command, [*map(str, arguments), "--out", str(tmp_path / "r")])
    assert done.exception is None, done.output
    run, extractor = load_run(tmp_path / "r"), GridExtractor.load(tmp_path / "r")
    for key, tensor in to_original(name, run.captioner).items():
        assert torch.equal(tensor, state[key]), key
    for key, tensor in extractor.network.state_dict().items():
        assert torch.equal(tensor, state[f"model.cnn.{key}"]), key
    sizes = [parameter.numel() for parameter in extractor.network.parameters()]
    unused = sum(state[f"model.cnn.fc.{part}"].numel() for part in ("weight", "bias"))
    assert sum(sizes) + unused == listed["param_count_regnet"]
    used = sum(parameter.numel() for parameter in run.captioner.parameters())
    others = {
        key
        for key in state
        if not key.startswith("model.cnn.") and not key.startswith("model.backbone.")
    } - set(to_original(name, run.captioner))
    left = sum(state[key].numel() for key in others)
    assert used + left + listed["param_count_regnet"] == listed["param_count_total"]


def filled(shape: list[int] | torch.Size) -> Tensor:
    """Return numbers from -1.4 to 1.3 in the order of the elements."""
    count = 1
    for length in shape:
        count *= length
    return torch.linspace(-1.4, 1.3, count).view(*shape)


@pytest.mark.parametrize("name", CELLS)
def test_the_losses_that_the_course_expects_of_constant_weights(
    name: str, listed: dict[str, Any]
) -> None:
    was, now = listed["sizes"], SIZES
    lengths = {was["V"]: now["V"], was["wordvec_dim"]: now["W"], was["hidden_dim"]: now["H"]}
    lengths[4 * was["hidden_dim"]] = 4 * now["H"]
    network = cut("regnet_x_400mf")
    state = {
        f"model.cnn.{key}": filled(parameter.shape) for key, parameter in network.named_parameters()
    }
    for key, shape, _ in listed["state_dict"]:
        if not key.startswith("model."):
            state[key] = filled([lengths.get(length, length) for length in shape])
    captioner, weights = from_original(name, state)
    assert weights is not None
    missing, unknown = network.load_state_dict(weights, strict=False)
    assert not unknown
    assert all("running" in key or "num_batches" in key for key in missing)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
    extractor = GridExtractor("regnet_x_400mf", network, 112, layer="trunk_output")
    whole = FromImages(captioner, extractor, "train").train()
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    images = torch.linspace(-3, 3, now["N"] * 3 * 112 * 112).view(now["N"], 3, 112, 112)
    captions = (torch.arange(now["N"] * now["L"]) % now["V"]).view(now["N"], now["L"])
    batch = CaptionBatch(captions[:, :-1], captions[:, 1:], captions[:, 1:] != 0)
    with torch.no_grad():
        loss = cross_entropy(whole, Features((images - mean) / deviation), batch, per="caption")
    assert loss.item() == pytest.approx(PUBLISHED[name], rel=1e-6)


def test_an_encoder_in_training_mode_and_after_a_pass_of_noise() -> None:
    from torchvision.models import regnet_x_400mf

    golden = Golden("rnn_family/regnet.npz")
    images = golden["images_u8"]
    size = images.shape[-1]
    network = cut("regnet_x_400mf")
    torch.manual_seed(golden.meta["encoder_seed"])
    state = regnet_x_400mf(weights=None).state_dict()
    network.load_state_dict({key: state[key] for key in network.state_dict()})
    for name in golden.keys("check."):
        if name.endswith("weight"):
            tensor = state[name].double()
            sums = torch.stack([tensor.sum(), tensor.abs().sum()])
            if not torch.allclose(sums, golden[f"check.{name}"], rtol=1e-6, atol=1e-6):
                pytest.skip(f"this torch draws other random weights ({name})")
    pass_noise(network, size)
    norm = network.get_submodule("stem.1")
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(
        norm.running_mean, golden["bn_stem_running_mean_after_ctor"], **close
    )
    torch.testing.assert_close(norm.running_var, golden["bn_stem_running_var_after_ctor"], **close)
    assert int(norm.num_batches_tracked) == int(golden["bn_stem_num_batches"])
    extractor = GridExtractor("regnet_x_400mf", network, size, layer="trunk_output")
    captioner = captioner_of(Golden("rnn_family/captioning_attn.npz"))[0]
    whole = FromImages(captioner, extractor, "train", channels_last=False)
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    seen = Features((images.float() / 255 - mean) / deviation)
    with torch.no_grad():
        before = extractor.to_maps(whole.eval().look(seen).cells)
        torch.testing.assert_close(before, golden["c5_eval"], **close)
        found = extractor.to_maps(whole.train().look(seen).cells)
    torch.testing.assert_close(found, golden["c5_train"], rtol=1e-4, atol=1e-4)
    after = golden["bn_stem_running_mean_after_train_fwd"]
    torch.testing.assert_close(norm.running_mean, after, **close)
