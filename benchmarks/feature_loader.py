"""Speed of the feature store: images per second in random order, and the time to open it.

    python benchmarks/feature_loader.py [--images 4000] [--passes 3] [--reads 50000]

Writes a store of 36 regions x 2048 half-precision features with boxes, classes and scores (the
size of bottom-up regions), reads every image once per pass in shuffled batches, and prints medians
beside those of a naive twin: h5py, one image at a time from an open file. Then reads on until
`reads` images were read. Memory is the private part, without the page cache.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch

from capscope.features.regions import Regions
from capscope.features.store import FeatureStore, create_region_store
from capscope.files import write_manifest

CELLS, DIM = 36, 2048


def private_memory() -> float:
    """Return the process's anonymous memory in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024


def rates_of(images: int, work: Callable[[], None]) -> tuple[float, float]:
    """Return images per second of the clock and of CPU time."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return images / (time.perf_counter() - clock), images / (time.process_time() - processor)


def write(folder: Path, images: int, regions: int, dim: int) -> None:
    corners = torch.rand(regions, 2, 2).sort(1).values.flatten(1)
    numbers, scores = torch.arange(regions), torch.rand(regions)
    cells = torch.randn(20, regions, dim)
    block = [Regions(some, corners, (640, 480), numbers, scores, numbers, scores) for some in cells]
    with create_region_store(
        folder,
        range(1, images + 1),
        regions=regions,
        dim=dim,
        dtype="float16",
        attributes={"network": "random"},
    ) as writer:
        for start in range(0, images, 20):
            writer.append(block[: min(20, images - start)])
    write_manifest(folder, "features", params={})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--reads", type=int, default=50_000)
    options = parser.parse_args()
    shuffled = np.random.default_rng(0).permutation(options.images) + 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, options.images, CELLS, DIM)
        store = FeatureStore.open(folder)

        def fast() -> None:
            for first in range(0, options.images, options.batch):
                store.read(shuffled[first : first + options.batch])

        def naive() -> None:
            with h5py.File(folder / "features.h5") as file:
                for row in shuffled - 1:
                    torch.from_numpy(file["regions"][row]).float()

        rates, memory = [], []
        for _ in range(options.passes + 1):  # the first pass warms the page cache
            rates.append(rates_of(options.images, fast))
            memory.append(private_memory())
        twin = rates_of(options.images, naive)
        while len(memory) * options.images < options.reads:
            fast()
            memory.append(private_memory())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, 20_000, 2, 8)
        opening = []
        for _ in range(5):
            start = time.perf_counter()
            FeatureStore.open(folder)
            opening.append(1000 * (time.perf_counter() - start))
    clock, processor = (statistics.median(column) for column in zip(*rates[1:], strict=True))
    print(f"{CELLS} x {DIM} float16, {options.images} images, batches of {options.batch}, shuffled")
    print(f"{'images per second':18s} {'clock':>10s} {'CPU':>10s}")
    print(f"{'store':18s} {clock:10,.0f} {processor:10,.0f}")
    print(f"{'h5py twin':18s} {twin[0]:10,.0f} {twin[1]:10,.0f}")
    print(f"{'ratio':18s} {clock / twin[0]:10.1f} {processor / twin[1]:10.1f}")
    print(
        f"memory {memory[1]:,.0f} MiB after pass 1, {memory[-1]:,.0f} after "
        f"{len(memory) * options.images:,} images"
    )
    print(f"opening {statistics.median(opening):.1f} ms for 20,000 images")


if __name__ == "__main__":
    main()
