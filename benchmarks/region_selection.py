"""Time of selecting regions, against the loops of the published programs.

    python benchmarks/region_selection.py [--proposals 300] [--classes 1600] [--repeats 3]

Draws what a detector of the published size says of one image, selects 36 regions by each procedure,
and prints CPU seconds of one thread beside those of a naive twin in the same run: the Caffe rule
with one suppression for each class, the other two with the boxes of all classes decoded first. Both
select the same rows. Beside the network, which takes seconds on a processor, all of it is little;
beside a GPU it is not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

from capscope.features.detector.backend import BOX_WEIGHTS, Found
from capscope.features.detector.boxes import Size, clip, decode, rescale
from capscope.features.detector.selection import (
    BEST_CLASS_OVERLAPS,
    PER_CLASS_FLOORS,
    PER_CLASS_OVERLAPS,
    PROPOSAL_FLOOR,
    PROPOSAL_OVERLAP,
    best_class,
    per_class,
    proposals,
)

SIZE, RAW_SIZE, REGIONS = (600, 800), (480, 640), 36


def drawn(count: int, classes: int) -> Found:
    """Return proposals that overlap, each with a few likely classes out of many."""
    rng = torch.Generator().manual_seed(0)
    extent = torch.tensor([SIZE[1], SIZE[0]]).float()
    centres = torch.rand(count, 2, generator=rng) * extent
    sides = extent * (0.1 + 0.4 * torch.rand(count, 2, generator=rng))
    boxes = clip(torch.cat([centres - sides / 2, centres + sides / 2], 1), SIZE)
    logits = torch.randn(count, classes + 1, generator=rng)
    likely = torch.randint(classes // 20, (count, 3), generator=rng)
    logits.scatter_add_(1, likely, 7 + torch.rand(count, 3, generator=rng))
    deltas = torch.randn(count, 4 * classes, generator=rng)
    return Found(boxes, torch.zeros(count, 1), logits, deltas, None)


def naive_proposals(found: Found) -> Tensor:
    scores = found.class_logits.softmax(1)[:, :-1]
    boxes = rescale(found.boxes, SIZE, RAW_SIZE)
    best = torch.zeros(len(boxes))
    for kind in range(scores.shape[1]):
        kept = nms(boxes, scores[:, kind], PROPOSAL_OVERLAP)
        best[kept] = torch.maximum(best[kept], scores[kept, kind])
    passing = (best >= PROPOSAL_FLOOR).nonzero()[:, 0]
    if len(passing) == REGIONS:
        return passing
    return best.argsort(descending=True, stable=True)[:REGIONS]


def all_boxes(found: Found, size: Size) -> Tensor:
    count, numbers = found.deltas.shape
    each = found.boxes.repeat_interleave(numbers // 4, 0)
    boxes = decode(each, found.deltas.reshape(-1, 4), BOX_WEIGHTS)
    return clip(boxes, size).reshape(count, -1, 4)


def naive_best_class(found: Found) -> Tensor:
    scores, classes = found.class_logits.softmax(1)[:, :-1].max(1)
    boxes = all_boxes(found, SIZE)[torch.arange(len(scores)), classes]
    kept = classes[:0]
    for overlap in BEST_CLASS_OVERLAPS:
        kept = nms(boxes, scores, overlap)[:REGIONS]
        if len(kept) == REGIONS:
            break
    return kept


def naive_per_class(found: Found) -> Tensor:
    boxes = all_boxes(found, SIZE)
    scores = found.class_logits.softmax(1)[:, :-1]
    rows = torch.empty(0, dtype=torch.int64)
    for floor in PER_CLASS_FLOORS:
        places = (scores > floor).nonzero()
        chosen, values = boxes[scores > floor], scores[scores > floor]
        for overlap in PER_CLASS_OVERLAPS:
            kept = batched_nms(chosen.double(), values.double(), places[:, 1], overlap)[:REGIONS]
            rows = places[kept, 0]
            if len(kept) == REGIONS:
                return rows
    return rows


def cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proposals", type=int, default=300)
    parser.add_argument("--classes", type=int, default=1600)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = drawn(given.proposals, given.classes)
    bounds = {"least": REGIONS, "most": REGIONS}
    pairs: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
        "proposals": (
            lambda: proposals(found, SIZE, RAW_SIZE, **bounds).rows,
            lambda: naive_proposals(found),
        ),
        "best_class": (
            lambda: best_class(found, SIZE, **bounds).rows,
            lambda: naive_best_class(found),
        ),
        "per_class": (
            lambda: per_class(found, SIZE, **bounds).rows,
            lambda: naive_per_class(found),
        ),
    }
    print("procedure,seconds,naive_seconds,naive_over_this")
    for name, (ours, naive) in pairs.items():
        assert ours().equal(naive()), f"{name} selects other rows"
        own, twin = (cpu_seconds(work, given.repeats) for work in (ours, naive))
        print(f"{name},{own:.4f},{twin:.4f},{twin / own:.1f}")


if __name__ == "__main__":
    main()
