"""LRP from the grid to the pixels for all words, against the network's forward and a naive twin.

Prints CPU seconds of the process, best of a few runs, one thread, and two ratios: to one forward
pass of the network on the same images (the bar is 1.3 (T + 2)), and to a naive twin, which does
what the published program does: for each word another forward pass and another backward pass,
layer by layer through autograd, weights clamped anew. Where two inputs of a max pool are equal up
to rounding, the two may choose different ones, which shows as a difference of about 1e-3.

    python benchmarks/relevance_image.py --network vgg16 --words 10
    python benchmarks/relevance_image.py --network small --words 10 --batch 16
"""

import argparse
import resource
import time
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn

from capscope.features.small import SmallNetwork
from capscope.relevance.image import ImageRelevance

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "vgg16": (lambda: torchvision.models.vgg16(weights=None).features[:-1], 224),
    "small": (lambda: SmallNetwork([16, 32, 64, 64, 128, 128]), 128),
    "squeezenet1_0": (lambda: torchvision.models.squeezenet1_0(weights=None).features, 224),
    "resnet50": (
        lambda: nn.Sequential(*list(torchvision.models.resnet50(weights=None).children())[:-2]),
        224,
    ),
}


def cpu_seconds(function: Callable[[], object], repeats: int) -> float:
    function()
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


def naive(network: nn.Sequential, images: Tensor, relevance: Tensor) -> Tensor:
    """Send every map back alone, layer by layer through autograd (alpha 1, beta 0)."""
    return torch.stack(
        [
            torch.stack([naive_map(network, image[None], start) for start in starts])
            for image, starts in zip(images, relevance, strict=True)
        ]
    )


def naive_map(network: nn.Sequential, image: Tensor, start: Tensor) -> Tensor:
    inputs = [image]
    with torch.no_grad():
        for module in network:
            inputs.append(nn.functional.relu(inputs[-1]) if is_relu(module) else module(inputs[-1]))
    relevance = start[None]
    for module, x in zip(reversed(network), reversed(inputs[:-1]), strict=True):
        if is_relu(module):
            continue
        parts = [x.clamp(min=0).requires_grad_(), x.clamp(max=0).requires_grad_()]
        if isinstance(module, nn.Conv2d):
            total = sum(
                nn.functional.conv2d(part, weight, None, module.stride, module.padding)
                for part, weight in zip(
                    parts, (module.weight.clamp(min=0), module.weight.clamp(max=0)), strict=True
                )
            )
        else:
            total = module(parts[0]) + 0 * parts[1].sum()
        ratio = relevance / (total + 1e-7 * (total == 0)).detach()
        slopes = torch.autograd.grad(total, parts, ratio)
        relevance = sum(part.detach() * slope for part, slope in zip(parts, slopes, strict=True))
    return relevance[0]


def is_relu(module: nn.Module) -> bool:
    return isinstance(module, nn.ReLU)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, default="vgg16")
    parser.add_argument("--words", type=int, default=10)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--naive", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    build, size = NETWORKS[options.network]
    network = build().eval()
    images = torch.randn(options.batch, 3, size, size)

    @torch.no_grad()
    def forward() -> Tensor:
        return network(images)

    grid = forward()
    relevance = grid[:, None] * torch.rand(options.batch, options.words, *grid.shape[1:])
    engine = ImageRelevance(network)
    passing = cpu_seconds(forward, options.repeats)
    explaining = cpu_seconds(lambda: engine.maps(images, relevance), options.repeats)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    bar = 1.3 * (options.words + 2)
    print(
        f"{options.network}, {size} pixels, {options.batch} images of {options.words} words, "
        "CPU seconds, one thread"
    )
    print(f"one forward pass        {passing:8.4f}")
    print(f"LRP of all words        {explaining:8.4f}   peak {peak:.2f} GB")
    print(f"ratio                   {explaining / passing:8.2f}   bar {bar:.2f}")
    if options.naive and options.network in ("vgg16", "small"):
        expected = naive(network, images, relevance)
        error = (engine.maps(images, relevance) - expected).abs().max() / expected.abs().max()
        slow = cpu_seconds(lambda: naive(network, images, relevance), 1)
        print(f"naive twin              {slow:8.4f}   {slow / explaining:.1f} times as long")
        print(f"largest difference      {error:8.1e}   of the largest relevance")


if __name__ == "__main__":
    main()
