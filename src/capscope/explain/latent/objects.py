"""Objects: groups of visual features, and the words of a caption that name one.

Features are grouped by the class that the detector gave them, by the overlap of their boxes, or by
masks of what the image shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.features.visual import Features

NOUNS = ("NN", "NNS", "NNP", "NNPS")
PAIRS = ("NN", "NNP")
"""Tags of which two in a row make one object; the first kind is looked for first."""
Tagged = Sequence[tuple[str, str]]
"""Words with Penn Treebank tags."""
PARTS = ("features", "overlap", "class")
"""Ways to divide the features of an image without knowing what it shows."""
ObjectFinder = Callable[[str], list[str]]
"""From a caption to the objects it names, in order, with repetitions."""


class Match(NamedTuple):
    """An object of a caption, held against what the detector found."""

    name: str
    class_id: int | None
    """Of its class among the names; None if it is no name."""
    reference: int | None
    """The first (best) feature of that class; None if it was not detected."""


def classes_of(features: Features) -> list[int]:
    """Return the class of each feature of one image, without padding; -1 is none.

    Raises
    ------
    CapscopeError
        If nobody knows the classes.
    """
    if features.class_ids is None:
        raise CapscopeError(
            "these visual features have no classes: objects by class need regions of a detector "
            "that names them (features.regions); overlap needs boxes alone"
        )
    there = features.class_ids[0]
    if features.valid is not None:
        there = there[features.valid[0]]
    found: list[int] = there.tolist()
    return found


def by_class(class_ids: Sequence[int], features: int) -> dict[int, Tensor]:
    """Return which features (N,) are of each class that there is, by ascending class.

    Features of class -1 are of none.
    """
    if len(class_ids) > features:
        raise CapscopeError(
            f"{len(class_ids)} classes for {features} visual features: they come from another "
            "detector; take classes and features from the same one"
        )
    known = sorted({one for one in class_ids if one >= 0})
    found = {one: torch.zeros(features, dtype=torch.bool) for one in known}
    for place, one in enumerate(class_ids):
        if one >= 0:
            found[one][place] = True
    return found


def by_overlap(boxes: Tensor, threshold: float = 0.5) -> Tensor:
    """Group boxes (n, 4), best first: each joins the first group whose best box it overlaps.

    Returns
    -------
    Tensor (K, n) bool
        Groups; every box is in one. Overlap is intersection over union.
    """
    groups: list[Tensor] = []
    heads: list[int] = []
    overlaps = intersection_over_union(boxes, boxes)
    for place in range(len(boxes)):
        joined = [group for group, head in enumerate(heads) if overlaps[place, head] >= threshold]
        if not joined:
            heads.append(place)
            groups.append(torch.zeros(len(boxes), dtype=torch.bool))
            joined = [len(groups) - 1]
        groups[joined[0]][place] = True
    return torch.stack(groups) if groups else torch.zeros(0, 0, dtype=torch.bool)


def grouped(own: Features, by: str, overlap: float = 0.5) -> Tensor:
    """Return the parts of one image: (K, n) bool over its n features that are no padding.

    Parameters
    ----------
    by : str
        One of `PARTS`: each feature alone; those whose boxes overlap; those of one class, best
        first, where a feature without a class is a part of its own.
    overlap : float
        See `by_overlap`.

    Raises
    ------
    CapscopeError
        For an unknown grouping, or features without the boxes or classes that it needs.
    """
    there = own.valid[0] if own.valid is not None else torch.ones_like(own.cells[0, :, 0]).bool()
    count = int(there.sum())
    if by == "features":
        return torch.eye(count, dtype=torch.bool)
    if by == "overlap":
        if own.boxes is None:
            raise CapscopeError(
                "these visual features have no boxes, so nobody knows which of them are one "
                "object: set explanations.lime.parts to features"
            )
        return by_overlap(own.boxes[0, there], overlap)
    if by != "class":
        raise CapscopeError(f"unknown parts {by!r} of an image; there are: {', '.join(PARTS)}")
    class_ids = torch.tensor(classes_of(own))
    alone = torch.where(class_ids < 0, -1 - torch.arange(count), class_ids)
    heads = dict.fromkeys(alone.tolist())
    return torch.stack([alone == one for one in heads])


def by_mask(covered: Tensor, least: float = 0.25) -> Tensor:
    """Group features by the mask that covers most of them.

    Parameters
    ----------
    covered : Tensor (K, n)
        Share of each feature that each of K masks covers.
    least : float
        A feature of which no mask covers this much is in no group.

    Returns
    -------
    Tensor (K, n) bool
    """
    if not covered.numel():
        return covered.bool()
    best = covered.argmax(0)
    found = torch.zeros_like(covered, dtype=torch.bool)
    found[best, torch.arange(covered.shape[1])] = True
    return found & (covered >= least)


def intersection_over_union(a: Tensor, b: Tensor) -> Tensor:
    """Return the overlap (n, m) of boxes (n, 4) and (m, 4)."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    sizes = [(boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1) for boxes in (a, b)]
    whole = sizes[0][:, None] + sizes[1][None] - shared
    return torch.where(whole > 0, shared / whole.clamp(min=1e-12), 0.0)


def objects_of_tags(tagged: Tagged) -> list[str]:
    """Return the objects of a tagged caption: two nouns in a row are one, others one each.

    As published: first pairs of NN, then pairs of NNP, left to right; then every noun left.
    """
    joined: list[tuple[str, str]] = list(tagged)
    for tag in PAIRS:
        found: list[tuple[str, str]] = []
        place = 0
        while place < len(joined):
            here = joined[place : place + 2]
            if len(here) == 2 and all(one == tag for _, one in here):
                found.append((f"{here[0][0]} {here[1][0]}", "object"))
                place += 2
            else:
                found.append(joined[place])
                place += 1
        joined = found
    return [text for text, tag in joined if tag == "object" or tag in NOUNS]


def tagged_finder(tags: Mapping[str, str]) -> ObjectFinder:
    """Return what finds the nouns of captions by a table of words and their tags.

    A word that is not in the table is no noun. The published program tags each caption anew, by a
    model that tells a noun from its context.
    """
    return lambda caption: objects_of_tags([(word, tags.get(word, "")) for word in caption.split()])


def named_finder(names: Sequence[str]) -> ObjectFinder:
    """Return what finds class names in captions, the longest first; it needs no tagger."""
    known = set(names)
    longest = max((len(name.split()) for name in known), default=1)

    def find(caption: str) -> list[str]:
        words = caption.split()
        found, place = [], 0
        while place < len(words):
            for length in range(min(longest, len(words) - place), 0, -1):
                text = " ".join(words[place : place + length])
                if text in known:
                    found.append(text)
                    place += length
                    break
            else:
                place += 1
        return found

    return find


def match_objects(
    objects: Sequence[str], class_ids: Sequence[int], names: Sequence[str]
) -> list[Match]:
    """Hold the objects of a caption against the classes of an image's features, best first."""
    ids: dict[str, int] = {}
    for place, name in enumerate(names):
        ids.setdefault(name, place)
    found = []
    for name in objects:
        class_id = ids.get(name)
        detected = class_id is not None and class_id in class_ids
        reference = class_ids.index(class_id) if class_id is not None and detected else None
        found.append(Match(name, class_id, reference))
    return found
