"""Which of a detector's proposals become the regions of an image: three published procedures.

All of them work on what any back end finds (`capscope.features.detector.backend.Found`);
`selection_reference` holds slow twins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from capscope.features.detector.backend import BOX_WEIGHTS, Found
from capscope.features.detector.boxes import Size, clip, decode, rescale

BEST_CLASS_OVERLAPS = tuple(np.arange(0.3, 1.0, 0.1).tolist())
"""Rising thresholds of `best_class`; arithmetic in double precision, last bits included."""
PER_CLASS_OVERLAPS = tuple(np.arange(0.5, 1.0, 0.1).tolist())
PER_CLASS_FLOORS = (0.2, 0.1)
"""Scores that `per_class` asks for; the second where the first leaves too few regions."""
PROPOSAL_OVERLAP, PROPOSAL_FLOOR = 0.3, 0.2
NEGLIGIBLE = (0.05, 0.001, 0.0)
"""Scores up to these are looked at only where those above leave too few regions."""


class Try(NamedTuple):
    """One attempt to find enough regions: the thresholds and what they left."""

    floor: float
    overlap: float
    kept: int


class Selection(NamedTuple):
    """The selected regions of one image.

    Attributes
    ----------
    rows : Tensor (n,) int64
        Their proposals; one may come twice, as two classes.
    boxes : Tensor (n, 4)
        In pixels of the resized image.
    classes, scores : Tensor (n,)
    tries : tuple of Try
    """

    rows: Tensor
    boxes: Tensor
    classes: Tensor
    scores: Tensor
    tries: tuple[Try, ...]

    def where(self, kept: Tensor) -> Selection:
        """Return some of the regions, by their places or by a mask."""
        rows, boxes, classes, scores = self.rows, self.boxes, self.classes, self.scores
        return Selection(rows[kept], boxes[kept], classes[kept], scores[kept], self.tries)


def best_class(
    found: Found,
    size: Size,
    *,
    least: int,
    most: int,
    overlaps: Sequence[float] = BEST_CLASS_OVERLAPS,
) -> Selection:
    """Give each proposal its likeliest class; suppress overlaps, ever fewer, until enough is left.

    A proposal comes once, with the box of its class. Where the last threshold leaves fewer than
    `least`, there are fewer.

    Parameters
    ----------
    size : (height, width)
        Of the resized image, to which boxes are clipped.
    least, most : int
        Regions of an image; 36 and 36, or 10 and 100.
    """
    scores, classes = _probabilities(found)[:, :-1].max(1)
    rows = torch.arange(len(scores), device=scores.device)
    boxes = _class_boxes(found, rows, classes, size)
    kept, tries = rows[:0], []
    for overlap in overlaps:
        kept = nms(boxes, scores, overlap)[:most]
        tries.append(Try(0.0, overlap, len(kept)))
        if len(kept) >= least:
            break
    return Selection(rows, boxes, classes, scores, tuple(tries)).where(kept)


def per_class(
    found: Found,
    size: Size,
    *,
    least: int,
    most: int,
    overlaps: Sequence[float] = PER_CLASS_OVERLAPS,
    floors: Sequence[float] = PER_CLASS_FLOORS,
    rounded: bool = False,
) -> Selection:
    """Take all (proposal, class) pairs of some score; suppress overlaps within each class.

    A proposal may come more than once, as different classes. Thresholds rise as in `best_class`;
    where the last leaves fewer than `least`, lower scores are admitted.

    Parameters
    ----------
    rounded : bool
        As published: classes are kept apart by adding their number times the image's extent to
        the boxes in single precision, which rounds boxes of high classes to 1/8 pixel.
    """
    probabilities = _probabilities(found)[:, :-1]
    tries: list[Try] = []
    rows = classes = kept = torch.empty(0, dtype=torch.int64)
    boxes, scores = found.boxes[:0], probabilities[:0, 0]
    for floor in floors:
        rows, classes = (probabilities > floor).nonzero(as_tuple=True)
        scores, boxes = probabilities[rows, classes], _class_boxes(found, rows, classes, size)
        for overlap in overlaps:
            apart = class_offset_nms if rounded else nms_within_classes
            kept = apart(boxes, scores, classes, overlap)[:most]
            tries.append(Try(floor, overlap, len(kept)))
            if len(kept) >= least:
                return Selection(rows, boxes, classes, scores, tuple(tries)).where(kept)
    return Selection(rows, boxes, classes, scores, tuple(tries)).where(kept)


def proposals(
    found: Found,
    size: Size,
    raw_size: Size,
    *,
    least: int,
    most: int,
    inclusive: bool = False,
) -> Selection:
    """Select proposals by the best class score that survives suppression, as the Caffe original.

    The region is the proposal itself, so that box and feature belong together; its class is the
    likeliest one. Proposals of a score of 0.2 come in the network's order if they are at least
    `least` and at most `most`, otherwise that many of the best, best first.

    Parameters
    ----------
    raw_size : (height, width)
        Of the image itself: overlaps are measured in its pixels.
    inclusive : bool
        As published: corners count as pixels of a box, so that widths are greater by 1.
    """
    probabilities = _probabilities(found)[:, :-1]
    boxes = rescale(found.boxes, size, raw_size)
    if inclusive:
        boxes = boxes + boxes.new_tensor([0, 0, 1, 1])
    best = probabilities.new_zeros(len(boxes))
    for floor in NEGLIGIBLE:
        best = surviving_scores(boxes, probabilities, floor)
        if int((best > 0).sum()) >= least:
            break
    kept = (best >= PROPOSAL_FLOOR).nonzero()[:, 0]
    tries = (Try(PROPOSAL_FLOOR, PROPOSAL_OVERLAP, len(kept)),)
    if not least <= len(kept) <= most:
        number = least if len(kept) < least else most
        kept = best.argsort(descending=True, stable=True)[:number]
    scores, classes = probabilities[kept].max(1) if len(kept) else (best, kept)
    return Selection(kept, clip(found.boxes[kept], size), classes, scores, tries)


def surviving_scores(boxes: Tensor, probabilities: Tensor, floor: float) -> Tensor:
    """Return the best score (R,) with which each box survives suppression within a class.

    Scores of at most `floor` are left out. Those above are exact without them: a box is suppressed
    only by one of a higher score.
    """
    rows, classes = (probabilities > floor).nonzero(as_tuple=True)
    scores = probabilities[rows, classes]
    kept = nms_within_classes(boxes[rows], scores, classes, PROPOSAL_OVERLAP)
    best = probabilities.new_zeros(len(boxes))
    return best.scatter_reduce(0, rows[kept], scores[kept], "amax")


def nms_within_classes(boxes: Tensor, scores: Tensor, classes: Tensor, overlap: float) -> Tensor:
    """Suppress overlaps within each class; return what is kept, in descending score."""
    order = classes.argsort(stable=True)
    counts = [count for count in classes.bincount().tolist() if count]
    groups = torch.split(order, counts)
    kept = [own[nms(boxes[own], scores[own], overlap)] for own in groups]
    together = torch.cat(kept).sort().values if kept else order
    return together[scores[together].argsort(descending=True, stable=True)]


def class_offset_nms(boxes: Tensor, scores: Tensor, classes: Tensor, overlap: float) -> Tensor:
    """Suppress overlaps within each class as published, with its rounding: see `per_class`."""
    if not len(boxes):
        return classes
    kept: Tensor = nms(boxes + (classes * (boxes.max() + 1))[:, None], scores, overlap)
    return kept


def attributes_of(found: Found, rows: Tensor, *, count_none: bool) -> tuple[Tensor, Tensor]:
    """Return the likeliest attribute of proposals and its probability, both (n,).

    Parameters
    ----------
    count_none : bool
        True: of all answers, "no attribute" among them. False: of the attributes alone.
    """
    if found.attribute_logits is None:
        raise ValueError("the detector knows no attributes")
    logits = found.attribute_logits[rows]
    if count_none:
        scores, ids = logits.softmax(1)[:, :-1].max(1)
    else:
        scores, ids = logits[:, :-1].softmax(1).max(1)
    return ids, scores


def _probabilities(found: Found) -> Tensor:
    return found.class_logits.softmax(1)


def _class_boxes(found: Found, rows: Tensor, classes: Tensor, size: Size) -> Tensor:
    """Return the boxes (n, 4) of (proposal, class) pairs; the others are never decoded."""
    count, numbers = found.deltas.shape
    deltas = found.deltas.reshape(count, numbers // 4, 4)[rows, classes]
    return clip(decode(found.boxes[rows], deltas, BOX_WEIGHTS), size)
