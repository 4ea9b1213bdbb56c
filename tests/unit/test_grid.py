import json
import os
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from bad_images import picture
from safetensors.torch import save_file
from torch import Tensor, nn

from capscope.errors import CapscopeError
from capscope.features.grid import GridExtractor, build_extractor, position_channels
from capscope.features.weights import convolutional, read_state
from capscope.tensors import fit


def settings(**change: Any) -> dict[str, Any]:
    made = {"network": "squeezenet1_0", "weights": "x.pth", "image_size": 64, "scale": 1.0}
    return made | {"layer": None, "pool": None} | change


def random_state(name: str) -> dict[str, Tensor]:
    """Return a state dict as torchvision has it, with random weights and a stub of a classifier."""
    with torch.device("meta"):
        whole = getattr(torchvision.models, name)(weights=None)
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, tensor in whole.features.state_dict().items():
        fan_in = max(1, tensor[0].numel())
        noise = torch.randn(tensor.shape, generator=generator)
        state[f"features.{key}"] = noise * (2 / fan_in) ** 0.5
    return state | {"classifier.1.weight": torch.zeros(2)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    for name in ("squeezenet1_0", "vgg16"):
        torch.save(random_state(name), folder / f"{name}.pth")
    return folder


@pytest.mark.parametrize(
    ("name", "grids"),
    [("squeezenet1_0", {64: (3, 3), 224: (13, 13)}), ("vgg16", {64: (4, 4), 224: (14, 14)})],
)
@pytest.mark.slow
def test_cells_are_the_maps_of_torchvision_row_by_row(
    weights: Path, name: str, grids: dict[int, tuple[int, int]]
) -> None:
    for size, grid in grids.items():
        path = str(weights / f"{name}.pth")
        extractor = build_extractor(settings(network=name, weights=path, image_size=size))
        assert extractor.grid == grid
        assert (extractor.channels, extractor.dim) == (512, 512)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    small = build_extractor(settings(network=name, weights=str(weights / f"{name}.pth")))
    with torch.device("meta"):
        twin = getattr(torchvision.models, name)(weights=None).features
    twin = (twin[:-1] if name == "vgg16" else twin).to_empty(device="cpu")
    fit(twin, convolutional(read_state(weights / f"{name}.pth")), "file")
    with torch.no_grad():
        maps = twin(images.clone())
        cells = small(images)
    torch.testing.assert_close(cells[:, 5], maps[:, :, 5 // grids[64][1], 5 % grids[64][1]])
    torch.testing.assert_close(small.to_maps(cells), maps)


@pytest.mark.slow
def test_the_network_is_plain_frozen_and_can_be_traced(weights: Path) -> None:
    network = build_extractor(settings(weights=str(weights / "squeezenet1_0.pth"))).network
    assert not any(module.inplace for module in network.modules() if isinstance(module, nn.ReLU))
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not network.training
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(torch.fx.symbolic_trace(network)(images), network(images))


@pytest.mark.slow
def test_an_image_becomes_a_square_of_the_networks_size(weights: Path) -> None:
    extractor = build_extractor(settings(weights=str(weights / "squeezenet1_0.pth")))
    assert extractor.preprocess(picture(50, 20)).shape == (3, 64, 64)


def toy(**options: Any) -> GridExtractor:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 5, 3, stride=8, padding=1), nn.ReLU(inplace=True))
    return GridExtractor("toy", network, 32, layer="conv1", **options)


def test_scale_and_positions_come_after_the_network() -> None:
    images = torch.randn(2, 3, 32, 32)
    plain, rich = toy(), toy(scale=0.25, positions=4)
    assert (rich.channels, rich.dim, rich.grid) == (5, 9, (4, 4))
    cells = rich(images)
    torch.testing.assert_close(rich.network(images), plain.network(images))
    torch.testing.assert_close(cells[..., :5], plain(images) * 0.25)
    torch.testing.assert_close(cells[1, :, 5:], position_channels((4, 4), 4))
    torch.testing.assert_close(rich.to_maps(cells), plain.network(images) * 0.25)
    words = torch.randn(2, 7, 16, 9)
    assert rich.to_maps(words).shape == (2, 7, 5, 4, 4)


@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (8, 8)])
@pytest.mark.parametrize("count", [4, 6, 10])
def test_position_channels_are_shares_of_stations(grid: tuple[int, int], count: int) -> None:
    channels = position_channels(grid, count).view(*grid, count)
    columns, rows = channels[..., : count // 2], channels[..., count // 2 :]
    assert (channels >= 0).all()
    torch.testing.assert_close(columns.sum(-1), torch.ones(grid))
    torch.testing.assert_close(rows.sum(-1), torch.ones(grid))
    torch.testing.assert_close(columns, columns[:1].expand_as(columns))
    torch.testing.assert_close(rows, rows[:, :1].expand_as(rows))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_position_channels_need_two_stations_on_each_axis(count: int) -> None:
    with pytest.raises(ValueError, match="half of them an axis"):
        toy(positions=count)


def test_two_stations_interpolate_from_left_to_right_and_top_to_bottom() -> None:
    channels = position_channels((2, 3), 4)
    x, y = torch.tensor([0, 0.5, 1, 0, 0.5, 1]), torch.tensor([0, 0, 0, 1, 1, 1.0])
    torch.testing.assert_close(channels, torch.stack([1 - x, x, 1 - y, y], -1))


@pytest.mark.slow
def test_an_extractor_is_rebuilt_from_a_folder(weights: Path, tmp_path: Path) -> None:
    extractor = build_extractor(settings(weights=str(weights / "squeezenet1_0.pth"), scale=0.5))
    extractor.save(tmp_path)
    again = GridExtractor.load(tmp_path)
    assert again.spec() == extractor.spec()
    assert json.loads((tmp_path / "extractor.json").read_text()) == extractor.spec()
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(again(images), extractor(images), rtol=0, atol=0)


@pytest.mark.slow
def test_weights_of_another_extractor_are_refused(weights: Path, tmp_path: Path) -> None:
    extractor = build_extractor(settings(weights=str(weights / "squeezenet1_0.pth")))
    extractor.save(tmp_path)
    state = {key: tensor + 1 for key, tensor in extractor.network.state_dict().items()}
    save_file(state, tmp_path / "extractor.safetensors")
    with pytest.raises(CapscopeError, match=r"does not belong to .*extractor\.json"):
        GridExtractor.load(tmp_path)
    (tmp_path / "extractor.json").write_text("{}")
    with pytest.raises(CapscopeError, match="does not describe a grid extractor"):
        GridExtractor.load(tmp_path)


def without(name: str) -> dict[str, Tensor]:
    state = random_state("squeezenet1_0")
    del state[name]
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (without("features.3.squeeze.bias"), r"missing 3\.squeeze\.bias"),
        (random_state("squeezenet1_0") | {"features.99.bias": torch.zeros(1)}, r"unknown 99\.bias"),
        (
            random_state("squeezenet1_0") | {"features.0.bias": torch.zeros(3)},
            r"0\.bias has shape \(3,\), expected \(96,\)",
        ),
        (
            random_state("squeezenet1_0") | {"features.0.bias": torch.full((96,), torch.nan)},
            r"0\.bias is not finite",
        ),
        (random_state("vgg16"), "and [0-9]+ more"),
        ({"state_dict": torch.zeros(1)}, "unknown state_dict|missing"),
    ],
)
@pytest.mark.slow
def test_a_state_dict_that_does_not_fit_names_its_keys(
    tmp_path: Path, state: dict[str, Tensor], message: str
) -> None:
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(CapscopeError, match=rf"x\.pth do not fit: .*({message})"):
        build_extractor(settings(weights=str(tmp_path / "x.pth")))


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.slow
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    torch.save({"features.0.weight": Canary(tmp_path / "ran")}, tmp_path / "x.pth")
    with pytest.raises(CapscopeError, match=r"x\.pth was not loaded: .*can run code"):
        build_extractor(settings(weights=str(tmp_path / "x.pth")))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04" + b"\0" * 50])
@pytest.mark.slow
def test_a_damaged_weights_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CapscopeError, match=name):
        build_extractor(settings(weights=str(tmp_path / name)))


@pytest.mark.slow
def test_something_else_than_a_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "x.pth")
    with pytest.raises(CapscopeError, match="are not a state dict"):
        read_state(tmp_path / "x.pth")


def test_weights_that_do_not_exist_are_named() -> None:
    with pytest.raises(CapscopeError, match=r"nowhere\.pth does not exist"):
        build_extractor(settings(weights="nowhere.pth"))


def test_a_download_without_a_network_says_what_to_put_where(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def offline(address: str, **options: Any) -> None:
        assert options["weights_only"] is True
        assert options["check_hash"] is True
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(CapscopeError, match=r"vgg16-.*pth.*no route.*features\.grid\.weights"):
        build_extractor(settings(network="vgg16", weights="download"))


@pytest.mark.slow
def test_a_download_is_loaded_as_a_file_is(monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    state = random_state("squeezenet1_0")
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *a, **k: state)
    downloaded = build_extractor(settings(weights="download"))
    from_file = build_extractor(settings(weights=str(weights / "squeezenet1_0.pth")))
    assert downloaded.spec() == from_file.spec()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "trained"}, "'trained' goes with 'small'"),
        ({"network": "small"}, "'trained' goes with 'small'"),
        ({"network": "small", "weights": "trained"}, "give the folder of --backbone"),
        ({"network": "resnet"}, "unknown grid network 'resnet'"),
    ],
)
def test_settings_that_do_not_go_together_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CapscopeError, match=message):
        build_extractor(settings(**change))


@pytest.mark.slow
def test_images_too_small_for_the_network_are_named(weights: Path) -> None:
    path = str(weights / "squeezenet1_0.pth")
    with pytest.raises(CapscopeError, match="image_size = 8"):
        build_extractor(settings(weights=path, image_size=8))
