"""The folders of the published latent-space program, with JSON and YAML in place of pickles.

=======================================================  ==========================================
file                                                     content
=======================================================  ==========================================
``lrp_probs/D/captions.yaml``                            image + ``.hdf5``: [caption]
``lrp_probs/D/S/captions.yaml``                          the same, where the first is not there
``lrp_probs/D/S/IMAGE.hdf5_lrp_probs.json``              rows of scores, one a word of the caption
``lrp_probs/D/explanations_S_lrp.json``                  image: [{object: features, best first}]
``lime_probs/D/object_classes_scores_S.json``            image: class of each feature, best first
``lime_probs/D/limeN_perturb_indexes.json``              drawn masks: features perturbed together
``lime_probs/D/S/IMAGE_perturb_....json``                log-probabilities of the caption's words
``lime_probs/D/explanations_S_METHOD.json``              as for lrp
``lime_probs/D/bounds.json``                             least and largest value of each dimension
``lime_probs/D/random_train_indexes.json``               which images of the split train
=======================================================  ==========================================

D is the data set, S the split. What is there is read; the rest is made. The program has pickles of
the same names without ``.json``: `prepare` converts the ones that it shares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from torch import Tensor

from capscope.data.annotations import Image
from capscope.errors import CapscopeError
from capscope.explain.latent.published import VARIANTS
from capscope.files import read_json, write_json, write_text
from capscope.pickled_data import load_pickled_data
from capscope.tensors import read_foreign

LARGEST = 1 << 28
"""Bytes of a pickle that is read."""


@dataclass(frozen=True)
class LatentFiles:
    """Where the program's files are.

    Attributes
    ----------
    root : Path
        Holds ``lrp_probs`` and ``lime_probs``.
    dataset, split : str
    """

    root: Path
    dataset: str
    split: str

    @property
    def lrp(self) -> Path:
        """Folder of LRP's files of the data set."""
        return self.root / "lrp_probs" / self.dataset

    @property
    def lime(self) -> Path:
        """Folder of LIME's files of the data set."""
        return self.root / "lime_probs" / self.dataset

    def captions(self) -> dict[str, str]:
        """Read the captions by image, under both of the published keys; none without the file.

        The program reads one file and writes another, in the folder of the split.
        """
        paths = (self.lrp / "captions.yaml", self.lrp / self.split / "captions.yaml")
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            return {}
        try:
            loaded = yaml.safe_load(path.read_text("utf-8")) or {}
            return {key.removesuffix(".hdf5"): str(value[0]) for key, value in loaded.items()}
        except (
            yaml.YAMLError,
            UnicodeDecodeError,
            AttributeError,
            TypeError,
            LookupError,
        ) as error:
            raise CapscopeError(
                f"{path} is no mapping of images to lists with one caption: {error}"
            ) from error

    def prepare(self) -> list[Path]:
        """Convert the program's pickles of masks and classes, and its tensor of bounds, to JSON.

        Returns the files that were written; those that are there already are kept.
        """
        bounds = ("mn_mx_bu_1024.pt", "mn_mx_bu_1024_flickr30k.pt")
        found = {
            name: (name,)
            for name in (
                f"object_classes_scores_{self.split}",
                "random_train_indexes",
                *(f"{method}_perturb_indexes" for method in VARIANTS),
            )
        } | {"bounds": bounds}
        written = []
        for name, sources in found.items():
            source = next((self.lime / one for one in sources if (self.lime / one).exists()), None)
            target = self.lime / f"{name}.json"
            if source is None or target.exists():
                continue
            write_json(target, _plain(_read(source), source), indent=None)
            written.append(target)
        return written

    def write_captions(self, captions: Mapping[str, str]) -> None:
        """Write all captions in one file, each image once."""
        texts = {f"{image}.hdf5": [text] for image, text in captions.items()}
        write_text(self.lrp / "captions.yaml", yaml.safe_dump(texts, sort_keys=False))

    def probabilities(self, method: str, image: str) -> Path:
        """Return the file of one image's explanation."""
        if method == "lrp":
            return self.lrp / self.split / f"{image}.hdf5_lrp_probs.json"
        return self.lime / self.split / f"{image}{VARIANTS[method].suffix}.json"

    def explanations(self, method: str) -> Path:
        """Return the file with the orders of all images."""
        folder = self.lrp if method == "lrp" else self.lime
        return folder / f"explanations_{self.split}_{method}.json"

    def classes(self) -> dict[str, list[int]] | None:
        """Read the class of each feature by image; None without the file."""
        path = self.lime / f"object_classes_scores_{self.split}.json"
        return _checked_lists(path) if path.exists() else None

    def masks(self, method: str) -> list[list[int]] | None:
        """Read the drawn masks of a variant; None without the file."""
        path = self.lime / f"{method}_perturb_indexes.json"
        if not path.exists():
            return None
        loaded = read_json(path)
        if not isinstance(loaded, list) or not all(_is_ids(row) for row in loaded):
            raise CapscopeError(f"{path} is no list of lists of feature indices")
        return loaded

    def chosen(self, images: Sequence[Image]) -> Sequence[Image]:
        """Return the images of the split that are explained: of train, those that a file names."""
        path = self.lime / "random_train_indexes.json"
        if self.split != "train" or not path.exists():
            return images
        places = read_json(path)
        if not _is_ids(places) or any(place >= len(images) for place in places):
            raise CapscopeError(f"{path} is no list of places of the {len(images)} images of train")
        return [images[place] for place in places]

    def write_masks(self, method: str, masks: Sequence[Sequence[int]]) -> None:
        """Keep the drawn masks of a variant for all images."""
        write_json(self.lime / f"{method}_perturb_indexes.json", masks, indent=None)

    def read_orders(self, method: str) -> dict[str, list[dict[str, list[int]]]]:
        """Read the orders of all images; a `CapscopeError` says how to make them."""
        path = self.explanations(method)
        if not path.exists():
            raise CapscopeError(
                f"{path} is not there: run --mode expl and then --mode eval --eval-type "
                f"correlation with --expl-model {method}, which writes it"
            )
        loaded: dict[str, list[dict[str, list[int]]]] = read_json(path)
        return loaded

    def read_scores(self, method: str, image: str) -> Any:
        """Read one image's explanation; None if it was not made."""
        path = self.probabilities(method, image)
        return read_json(path) if path.exists() else None


def _read(source: Path) -> Any:
    """Read a PyTorch file or a pickle; neither can run code."""
    if source.suffix == ".pt":
        return read_foreign(source)
    if source.stat().st_size > LARGEST:
        raise CapscopeError(
            f"{source} is larger than {LARGEST >> 20} MB: no file of the program is"
        )
    try:
        with source.open("rb") as stream:
            return load_pickled_data(stream)
    except CapscopeError as error:
        raise CapscopeError(f"{source} was not read: {error}") from error


def _plain(loaded: Any, source: Path) -> Any:
    """Return lists in place of tensors; a list with one tensor an image is the list of its ids."""
    if isinstance(loaded, Tensor | np.ndarray):
        return loaded.tolist()
    if isinstance(loaded, dict):
        return {
            str(image): _plain(one[0] if isinstance(one, list) and len(one) == 1 else one, source)
            for image, one in loaded.items()
        }
    if isinstance(loaded, list):
        return [_plain(one, source) for one in loaded]
    if isinstance(loaded, int | float):
        return loaded
    raise CapscopeError(f"{source} holds {type(loaded).__name__}, no lists of numbers")


def _checked_lists(path: Path) -> dict[str, list[int]]:
    loaded = read_json(path)
    if not isinstance(loaded, dict) or not all(_is_ids(one) for one in loaded.values()):
        raise CapscopeError(f"{path} is no mapping of images to lists of class ids")
    return loaded


def _is_ids(row: Any) -> bool:
    return isinstance(row, list) and all(isinstance(one, int) and one >= 0 for one in row)
