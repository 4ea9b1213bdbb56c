"""From photographs of one's own to explained captions, with a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from capscope.data.images import IMAGE_SUFFIXES, read_image
from capscope.decoding.captions import caption_images
from capscope.decoding.hypothesis import Hypothesis
from capscope.errors import CapscopeError
from capscope.explain import explainer_class
from capscope.explain.split import open_subject
from capscope.explain.subject import Subject


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
class Explained:
    """A captioned photograph with the relevance of each word.

    Attributes
    ----------
    captioned : Captioned
    title : str
        What the explainer is called.
    maps : float (T, h, w)
        Signed relevance of the image; the whole image whatever its shape.
    before : float (T, T) or None
        ``before[t, i]`` is the relevance of word i for word t, for i < t.
    """

    captioned: Captioned
    title: str
    maps: NDArray[np.float64]
    before: NDArray[np.float64] | None

    def only(self, word: str) -> Explained:
        """Return what belongs to one word of the caption, without preceding words.

        Raises
        ------
        CapscopeError
            If the caption does not have the word; names those it has.
        """
        seen = self.captioned
        places = [place for place, text in enumerate(seen.words) if text == word.lower()]
        if not places:
            raise CapscopeError(
                f"the caption of {seen.path} has no word {word!r}; it says: {seen.caption}"
            )
        words = tuple(seen.words[place] for place in places)
        captioned = replace(seen, words=words, probabilities=seen.probabilities[places])
        return Explained(captioned, self.title, self.maps[places], None)


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

    def explain(self, path: Path, explainer: str, epsilon: float = 0.01) -> Explained:
        """Caption one photograph and explain every word.

        Raises
        ------
        CapscopeError
            Naming the file if it cannot be read, or if its caption has no word.
        """
        captioned, images, spoken = self._look(path)
        if not spoken.word_ids:
            raise CapscopeError(f"the caption of {path} is empty: there is no word to explain")
        method = explainer_class(explainer)(self.subject, epsilon)
        word_ids = self.subject.inputs(torch.tensor([spoken.word_ids]))
        lengths = torch.tensor([len(spoken.word_ids)])
        found = method.explain(images, self.subject.look(images), word_ids, lengths)
        grid = self.subject.network.grid
        maps = found.grid.reshape(1, -1, *grid) if found.pixels is None else found.pixels
        before = None if found.words is None else found.words[0].double().numpy()
        if before is not None:
            # Input 0 is the start of the caption; input i is word i - 1.
            before = np.pad(before[:, 1:], ((0, 0), (0, 1)))
        return Explained(captioned, method.title, maps[0].double().numpy(), before)

    def _look(self, path: Path) -> tuple[Captioned, torch.Tensor, Hypothesis]:
        subject: Subject = self.subject
        picture = read_image(path)
        images = subject.network.preprocess(picture).unsqueeze(0)
        features = subject.look(images)
        spoken = caption_images(subject.captioner, features, subject.vocabulary, self.settings)[0]
        words = tuple(subject.vocabulary.words[word_id] for word_id in spoken.word_ids)
        probabilities = np.exp(np.array(spoken.log_probs[: len(words)], dtype=np.float64))
        return Captioned(path, np.asarray(picture), words, probabilities), images, spoken
