"""Speed of extraction from image files to a feature store, beside the network's forward pass alone.

    python benchmarks/extraction.py [--networks vgg16 resnet101] [--images 48] [--rounds 3]

Both do the same batches with the same random weights in turns; a rate is images per second of the
clock, and per second of processor time of all threads. The images are photographs of `coco_sample`
(CAPSCOPE_DATA) where they are, else noise of the same size. The bar: 85 % of the forward pass.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from torch import nn
from torchvision import models

from capscope.data.annotations import Dataset, Image
from capscope.features.device import arithmetic, chosen_precision, compute_device, placed
from capscope.features.extract import extract_grid
from capscope.features.grid import GridExtractor
from capscope.features.job import reading_threads

SIZE = 224


def build(name: str) -> GridExtractor:
    torch.manual_seed(0)
    whole = models.get_model(name, weights=None)
    for module in whole.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        whole.train()(torch.randn(2, 3, SIZE, SIZE))  # else random residual networks overflow
    parts = whole.features[:-1] if hasattr(whole, "features") else list(whole.children())[:-2]
    return GridExtractor(name, nn.Sequential(*parts), SIZE, layer="last maps")


def photographs(count: int, folder: Path) -> Dataset:
    root = Path(os.environ.get("CAPSCOPE_DATA", "../shared/data")) / "coco_sample"
    paths = sorted(root.rglob("*.jpg"))
    if not paths:
        root, generator = folder, np.random.default_rng(0)
        for number in range(min(count, 16)):
            pixels = generator.integers(0, 256, (60, 80, 3), np.uint8)
            Pillow.fromarray(pixels).resize((640, 480)).save(folder / f"{number}.jpg", quality=90)
        paths = sorted(folder.glob("*.jpg"))
    files = [str(paths[n % len(paths)].relative_to(root)) for n in range(count)]
    images = [Image(n, file, "train", ("",), ((),)) for n, file in enumerate(files)]
    return Dataset("benchmark", root, tuple(images))


def rates_of(images: int, work: Callable[[], None]) -> tuple[float, float]:
    """Return images per second of the clock and of processor time."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return images / (time.perf_counter() - clock), images / (time.process_time() - processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["vgg16", "resnet101"])
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    device = compute_device()
    precision = chosen_precision("auto", device)
    print(f"{device.type}, {precision}, {torch.get_num_threads()} threads, batch {options.batch}")
    print(f"{'network':12s} {'per second of':14s} {'forward':>9s} {'whole':>9s} {'ratio':>7s}")
    for name in options.networks:
        extractor = build(name)
        placed(extractor, device)
        batch = torch.randn(options.batch, 3, SIZE, SIZE, device=device)
        batch = batch.contiguous(memory_format=torch.channels_last)
        images = options.images - options.images % options.batch

        def forward(extractor: GridExtractor = extractor, batch: torch.Tensor = batch) -> None:
            for _ in range(options.images // options.batch):
                with torch.inference_mode(), arithmetic(precision, device):
                    extractor(batch)
            if device.type == "cuda":
                torch.cuda.synchronize()

        with tempfile.TemporaryDirectory() as folder:
            dataset = photographs(images, Path(folder))

            def whole(
                extractor: GridExtractor = extractor,
                dataset: Dataset = dataset,
                out: Path = Path(folder),
            ) -> None:
                extract_grid(
                    dataset,
                    extractor,
                    out / "features",
                    batch_size=options.batch,
                    dtype="float16",
                    workers=reading_threads(),
                    precision=precision,
                )

            forward()
            rounds = [
                (rates_of(images, forward), rates_of(images, whole)) for _ in range(options.rounds)
            ]
        for number, unit in enumerate(("the clock", "processor")):
            alone, through = (
                statistics.median(pair[part][number] for pair in rounds) for part in (0, 1)
            )
            ratio = statistics.median(pair[1][number] / pair[0][number] for pair in rounds)
            print(f"{name:12s} {unit:14s} {alone:9.2f} {through:9.2f} {ratio:7.2f}")


if __name__ == "__main__":
    main()
