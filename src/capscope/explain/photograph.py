"""From photographs of one's own to explained captions, with a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from capscope.data.images import IMAGE_SUFFIXES, read_image
from capscope.decoding.captions import caption_images
from capscope.decoding.hypothesis import Hypothesis
from capscope.decoding.methods import search_images
from capscope.errors import CapscopeError
from capscope.explain import explainer_class
from capscope.explain.explanation import Explanation
from capscope.explain.split import open_subject
from capscope.explain.subject import Subject
from capscope.features.visual import Features

PAINTED = 128
"""Width and height of maps that regions are painted on."""


class NothingToExplainError(CapscopeError):
    """A caption has no word, or not the word that was asked for."""


@dataclass(frozen=True)
class Captioned:
    """A photograph and its caption of T words.

    Attributes
    ----------
    path : Path
    pixels : uint8 (H, W, 3)
        The photograph, upright.
    words : tuple of str
    probabilities : float (T,)
        Of each word, given those before it.
    """

    path: Path
    pixels: NDArray[np.uint8]
    words: tuple[str, ...]
    probabilities: NDArray[np.float64]

    @property
    def caption(self) -> str:
        """Return the words joined by blanks."""
        return " ".join(self.words)


@dataclass(frozen=True)
class Found:
    """What one explainer finds in a photograph for the T words of its caption.

    Attributes
    ----------
    title : str
        What the explainer is called.
    maps : float (T, h, w)
        Signed relevance of the image; the whole image whatever its shape.
    before : float (T, T) or None
        ``before[t, i]`` is the relevance of word i for word t, for i < t.
    regions : float (T, N) or None
        Signed relevance of regions, where the captioner sees regions; `maps` are painted with it.
    boxes : float (N, 4) or None
        Where the regions are: x0, y0, x1, y1 in [0, 1] of width and height.
    cells : float (T, h, w) or None
        Signed relevance of the cells of a grid, where `maps` are no more than these, enlarged.
    """

    title: str
    maps: NDArray[np.float64]
    before: NDArray[np.float64] | None
    regions: NDArray[np.float64] | None
    boxes: NDArray[np.float64] | None
    cells: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Explained:
    """A captioned photograph with what each explainer finds in it."""

    captioned: Captioned
    found: tuple[Found, ...]

    def only(self, word: str) -> Explained:
        """Return what belongs to one word of the caption, without preceding words.

        Raises
        ------
        NothingToExplainError
            If the caption does not have the word; names those it has.
        """
        seen = self.captioned
        places = [place for place, text in enumerate(seen.words) if text == word.lower()]
        if not places:
            raise NothingToExplainError(
                f"the caption of {seen.path} has no word {word!r}; it says: {seen.caption}"
            )
        words = tuple(seen.words[place] for place in places)
        captioned = replace(seen, words=words, probabilities=seen.probabilities[places])
        found = tuple(
            replace(
                one,
                maps=one.maps[places],
                before=None,
                regions=None if one.regions is None else one.regions[places],
                cells=None if one.cells is None else one.cells[places],
            )
            for one in self.found
        )
        return Explained(captioned, found)


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Return image files; a folder stands for the images in it, by name.

    Raises
    ------
    CapscopeError
        Naming the path that does not exist, or the folder without images.
    """
    found = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise CapscopeError(
                    f"{path} has no images; these are read: {', '.join(sorted(IMAGE_SUFFIXES))}"
                )
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise CapscopeError(f"image {path} does not exist")
    return found


class Photographer:
    """Captions and explains photographs with one trained run.

    Parameters
    ----------
    run_dir : Path
        From ``capscope train``; the network that makes its features lies in it.
    settings : mapping
        Laid over the run's own ``decoding`` parameters, such as ``{"beam": 5}``.
    """

    def __init__(self, run_dir: Path, settings: dict[str, Any]) -> None:
        run, self.subject = open_subject(run_dir)
        self.settings = {**run.info["decoding"], **settings}

    def caption(self, path: Path) -> Captioned:
        """Caption one photograph."""
        return self._look(path)[0]

    def captions(self, path: Path) -> list[str]:
        """Return all captions of one photograph that the decoding finds, the one to show first."""
        _, features = self.subject.see([np.asarray(read_image(path))])
        vocabulary = self.subject.vocabulary
        found = search_images(self.subject.captioner, features, vocabulary, self.settings)[0]
        return [vocabulary.decode(hypothesis.word_ids) for hypothesis in found]

    def check_word(self, word: str) -> None:
        """Refuse a word that no caption of this run can have."""
        known = self.subject.vocabulary.ids
        if word.lower() not in known:
            near = get_close_matches(word.lower(), known, 3)
            raise CapscopeError(
                f"{word!r} is not among the {len(known)} words that this run knows"
                + (f"; near it are: {', '.join(near)}" if near else "")
            )

    def explain(self, path: Path, explainers: Sequence[str], **options: Any) -> Explained:
        """Caption one photograph and explain every word, by each of the explainers.

        Parameters
        ----------
        path : Path
        explainers : sequence of str
            Keys of `capscope.explain.EXPLAINERS`.
        options
            Of the explainers, such as ``epsilon``.

        Raises
        ------
        NothingToExplainError
            Naming the file if its caption has no word.
        CapscopeError
            Naming the file if it cannot be read; an explainer that does not exist or does not fit
            the captioner.
        """
        methods = [explainer_class(name)(self.subject, **options) for name in explainers]
        captioned, images, features, spoken = self._look(path)
        if not spoken.word_ids:
            raise NothingToExplainError(
                f"the caption of {path} is empty: there is no word to explain"
            )
        word_ids = self.subject.inputs(torch.tensor([spoken.word_ids]))
        lengths = torch.tensor([len(spoken.word_ids)])
        found = []
        for method in tqdm(methods, desc=path.name, unit="explainer", disable=len(methods) == 1):
            explanation = method.explain(images, features, word_ids, lengths)
            grid = self.subject.network.grid if images is not None and method.enlarges else None
            found.append(_found(method.title, explanation.painted(features, PAINTED), grid))
        return Explained(captioned, tuple(found))

    def _look(self, path: Path) -> tuple[Captioned, Tensor | None, Features, Hypothesis]:
        subject: Subject = self.subject
        picture = np.asarray(read_image(path))
        images, features = subject.see([picture])
        spoken = caption_images(subject.captioner, features, subject.vocabulary, self.settings)[0]
        words = tuple(subject.vocabulary.words[word_id] for word_id in spoken.word_ids)
        probabilities = np.exp(np.array(spoken.log_probs[: len(words)], dtype=np.float64))
        return Captioned(path, picture, words, probabilities), images, features, spoken


def _found(title: str, explanation: Explanation, grid: tuple[int, int] | None) -> Found:
    """Return what an explanation of one caption says, as arrays; `grid` lays its cells out."""
    pixels, before, boxes = (
        None if tensor is None else tensor[0].double().numpy()
        for tensor in (explanation.pixels, explanation.words, explanation.boxes)
    )
    if pixels is None:
        raise CapscopeError(
            "the visual features of this run have no place in the image: there is no map to draw"
        )
    if before is not None:
        # Input 0 is the start of the caption; input i is word i - 1.
        before = np.pad(before[:, 1:], ((0, 0), (0, 1)))
    features = explanation.grid[0].double().numpy()
    cells = None if grid is None else features.reshape(-1, *grid)
    return Found(title, pixels, before, None if boxes is None else features, boxes, cells)
