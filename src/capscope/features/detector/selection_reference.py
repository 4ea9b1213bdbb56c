"""Slow twins of `selection`: loops over boxes and classes, straight from the description."""

from __future__ import annotations

import math

from capscope.features.detector.boxes import LARGEST_GROWTH, Size

Box = tuple[float, float, float, float]
Pair = tuple[float, int, int, Box]
"""Score, proposal, class and box of a candidate."""


def overlap_of(one: Box, other: Box, extra: float = 0.0) -> float:
    """Return intersection over union; `extra` is what inclusive corners add to each side."""
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]) + extra)
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]) + extra)
    shared = width * height
    first, second = ((b[2] - b[0] + extra) * (b[3] - b[1] + extra) for b in (one, other))
    whole = first + second - shared
    return shared / whole if whole else 0.0


def suppress(pairs: list[Pair], threshold: float, *, apart: bool, extra: float = 0.0) -> list[Pair]:
    """Keep each candidate that no kept one of a higher score overlaps; `apart` by class."""
    kept: list[Pair] = []
    for pair in sorted(pairs, key=lambda pair: -pair[0]):
        rivals = [other for other in kept if not apart or other[2] == pair[2]]
        if all(overlap_of(pair[3], other[3], extra) <= threshold for other in rivals):
            kept.append(pair)
    return kept


def softmax(logits: list[float]) -> list[float]:
    """Return probabilities."""
    powers = [math.exp(logit - max(logits)) for logit in logits]
    return [power / sum(powers) for power in powers]


def class_box(proposal: Box, deltas: list[float], kind: int, size: Size) -> Box:
    """Return the box of class `kind`, moved, stretched and clipped."""
    dx, dy, dw, dh = deltas[4 * kind : 4 * kind + 4]
    width, height = proposal[2] - proposal[0], proposal[3] - proposal[1]
    x = proposal[0] + width / 2 + dx / 10 * width
    y = proposal[1] + height / 2 + dy / 10 * height
    width *= math.exp(min(dw / 5, LARGEST_GROWTH))
    height *= math.exp(min(dh / 5, LARGEST_GROWTH))
    corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    bounds = (size[1], size[0], size[1], size[0])
    clipped = [min(max(c, 0.0), b) for c, b in zip(corners, bounds, strict=True)]
    return clipped[0], clipped[1], clipped[2], clipped[3]


def best_class(
    boxes: list[Box], logits: list[list[float]], deltas: list[list[float]], size: Size, count: int
) -> list[Pair]:
    """Return `count` candidates as `selection.best_class` does, fewer if there are no more."""
    pairs: list[Pair] = []
    for row, box in enumerate(boxes):
        objects = softmax(logits[row])[:-1]
        kind = objects.index(max(objects))
        pairs.append((objects[kind], row, kind, class_box(box, deltas[row], kind, size)))
    kept: list[Pair] = []
    for tenths in range(3, 10):
        kept = suppress(pairs, tenths / 10, apart=False)[:count]
        if len(kept) == count:
            break
    return kept


def per_class(
    boxes: list[Box], logits: list[list[float]], deltas: list[list[float]], size: Size, count: int
) -> list[Pair]:
    """Return `count` candidates as `selection.per_class` does, fewer if there are no more."""
    kept: list[Pair] = []
    for floor in (0.2, 0.1):
        pairs: list[Pair] = []
        for row, box in enumerate(boxes):
            for kind, score in enumerate(softmax(logits[row])[:-1]):
                if score > floor:
                    pairs.append((score, row, kind, class_box(box, deltas[row], kind, size)))
        for tenths in range(5, 10):
            kept = suppress(pairs, tenths / 10, apart=True)[:count]
            if len(kept) == count:
                return kept
    return kept


def proposals(
    raw_boxes: list[Box], logits: list[list[float]], least: int, most: int, *, inclusive: bool
) -> list[int]:
    """Return the proposals that `selection.proposals` selects, in its order."""
    probabilities = [softmax(row)[:-1] for row in logits]
    best = [0.0] * len(raw_boxes)
    for kind in range(len(probabilities[0])):
        pairs = [(p[kind], row, kind, raw_boxes[row]) for row, p in enumerate(probabilities)]
        for score, row, _, _ in suppress(pairs, 0.3, apart=False, extra=float(inclusive)):
            best[row] = max(best[row], score)
    passing = [row for row, score in enumerate(best) if score >= 0.2]
    if least <= len(passing) <= most:
        return passing
    order = sorted(range(len(best)), key=lambda row: -best[row])
    return order[: least if len(passing) < least else most]
