"""Where networks compute: reduced precision on a GPU only, and only where it is asked for."""

import pytest
import torch
from torch import nn

from capscope.features import extract
from capscope.features.device import arithmetic, chosen_precision, compute_device, moved, placed

CPU = torch.device("cpu")


def test_the_processor_computes_as_it_is():
    assert chosen_precision("auto", CPU) == "float32"
    assert chosen_precision("float32", CPU) == "float32"
    assert compute_device().type in ("cpu", "cuda")


@pytest.mark.parametrize(
    ("setting", "able", "chosen"),
    [("auto", True, "bfloat16"), ("auto", False, "float32"), ("float32", True, "float32")],
)
def test_a_gpu_computes_in_bfloat16_if_it_can_and_may(monkeypatch, setting, able, chosen):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: able)
    assert chosen_precision(setting, torch.device("cuda")) == chosen


def test_networks_and_images_have_channels_last_and_the_same_values():
    network, images = nn.Conv2d(3, 8, 3), torch.randn(2, 3, 9, 9)
    expected = network(images)
    batch = moved(images, CPU)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(placed(network, CPU)(batch), expected)
    assert network.weight.is_contiguous(memory_format=torch.channels_last)


def test_reduced_precision_is_near_leaves_weights_alone_and_comes_out_as_float32():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    batches = [torch.randn(2, 3, 12, 12) for _ in range(3)]
    (full, half) = (
        list(extract._computed(network, batches, precision))
        for precision in ("float32", "bfloat16")
    )
    assert len(full) == len(half) == 3
    for one, other in zip(full, half, strict=True):
        assert other.dtype == torch.float32
        assert not torch.equal(one, other)
        torch.testing.assert_close(one, other, atol=0.05, rtol=0.05)
    assert network[0].weight.dtype == torch.float32


def test_full_precision_changes_nothing():
    with arithmetic("float32", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
