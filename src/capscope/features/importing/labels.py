"""Segments made of labels: COCO's panoptic annotations, scenes' masks, torchvision's models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from capscope.data.annotations import Dataset, Image
from capscope.data.images import preprocess, read_image
from capscope.data.scenes import read_recipes
from capscope.data.scenes.lexicon import CLASSES, PLACES
from capscope.errors import CapscopeError
from capscope.features.importing.sources import DamagedFeaturesError, Entry
from capscope.features.panoptic import CHANNELS, VOC, VOC_CHANNELS
from capscope.features.segments import pooled_labels
from capscope.features.weights import read_state
from capscope.files import read_json
from capscope.tensors import fit

GRID = (7, 7)
SCENE_NAMES = (*CLASSES, *PLACES)
"""Classes of scenes: the objects, and the place where the image shows none."""
MODELS = (
    *("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50"),
    *("deeplabv3_resnet101", "fcn_resnet50", "fcn_resnet101"),
)
MODEL_SIZE = 520
"""Pixels to which images are squeezed for torchvision's models, about as they were trained."""


class LabelSource(ABC):
    """Pools the labels of an image's pixels over a grid.

    Attributes
    ----------
    grid : (h, w)
        That of the features which the segments accompany; 7 x 7 beside regions.
    classes : int
    """

    def __init__(self, classes: int) -> None:
        self.classes, self.grid = classes, GRID

    @abstractmethod
    def scan(self) -> Iterator[Entry]:
        """Yield the images that have labels."""

    @abstractmethod
    def labels(self, entry: Entry, image: Image) -> Tensor:
        """Return the class (H, W) of each pixel; -1 is none."""

    def read(self, entry: Entry, image: Image) -> Tensor:
        """Return the segments (h*w, S) of one image."""
        height, width = self.grid
        return pooled_labels(self.labels(entry, image), self.classes, (height, width))

    def close(self) -> None:
        """Nothing stays open."""
        return


class PanopticLabels(LabelSource):
    """COCO panoptic annotations: a JSON file, and beside it a folder of its name with PNG files.

    A pixel R, G, B belongs to the segment with id R + 256 G + 65536 B; 0 is none.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(len(CHANNELS))
        loaded = read_json(path)
        self._folder = path.with_suffix("")
        try:
            self._annotations = {
                Path(one["file_name"]).stem: (
                    str(one["file_name"]),
                    int(one["image_id"]),
                    {int(s["id"]): int(s["category_id"]) for s in one["segments_info"]},
                )
                for one in loaded["annotations"]
            }
        except (KeyError, TypeError, ValueError) as error:
            raise CapscopeError(f"{path} holds no panoptic annotations: {error}") from error
        self._path = path

    def scan(self) -> Iterator[Entry]:
        """Yield the annotations in order."""
        for stem, (file, image_id, _) in self._annotations.items():
            yield Entry(str(image_id), f"{self._path}, image {image_id} ({file})", stem)

    def labels(self, entry: Entry, image: Image) -> Tensor:
        """Read one PNG file."""
        file, _, segments = self._annotations[entry.place]
        try:
            pixels = np.asarray(read_image(self._folder / Path(file).name)).astype(np.int64)
        except CapscopeError as error:
            raise DamagedFeaturesError(f"{entry.where}: {error}") from error
        ids = pixels @ np.array([1, 256, 65536])
        return torch.from_numpy(_renamed(ids, segments, entry.where))


def _renamed(
    ids: np.ndarray[Any, np.dtype[np.int64]], segments: Mapping[int, int], where: str
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the channel of each pixel's segment."""
    shown, places = np.unique(ids, return_inverse=True)
    channels = np.full(len(shown), -1, np.int64)
    for place, number in enumerate(shown.tolist()):
        if number == 0:
            continue
        if number not in segments or segments[number] not in CHANNELS:
            raise DamagedFeaturesError(f"{where}: segment {number} has no known category")
        channels[place] = CHANNELS[segments[number]]
    return channels[places].reshape(ids.shape)


class SceneMasks(LabelSource):
    """The masks of drawn scenes: the true answer, for comparison with what a model computes."""

    def __init__(self, data_dir: Path, dataset: Dataset) -> None:
        super().__init__(len(SCENE_NAMES))
        self._recipes = read_recipes(data_dir)
        self._masks = data_dir / "masks"
        self._dataset = dataset

    def scan(self) -> Iterator[Entry]:
        """Yield all images."""
        for image in self._dataset.images:
            path = self._masks / Path(image.file).relative_to("images")
            yield Entry(str(image.id), str(path), path)

    def labels(self, entry: Entry, image: Image) -> Tensor:
        """Read one mask."""
        recipe = self._recipes[image.id]
        names = [recipe.place, *(thing.name for thing in recipe.objects)]
        numbers = torch.tensor([SCENE_NAMES.index(name) for name in names])
        return numbers[torch.from_numpy(np.asarray(read_image(entry.place))[..., 0].astype(int))]


class ModelLabels(LabelSource):
    """The classes that a segmentation model of torchvision sees, carried over to COCO's.

    Parameters
    ----------
    path : Path
        Weights, in a file that is called as torchvision calls it: the model's name first, as in
        ``lraspp_mobilenet_v3_large-d234d4ea.pth``.
    """

    def __init__(self, path: Path, dataset: Dataset) -> None:
        super().__init__(len(CHANNELS))
        import torchvision

        name = next((name for name in MODELS if path.name.startswith(name)), None)
        if name is None:
            raise CapscopeError(
                f"the name of {path} begins with no segmentation model of torchvision; known: "
                f"{', '.join(MODELS)}"
            )
        model: nn.Module = getattr(torchvision.models.segmentation, name)(
            weights=None, weights_backbone=None, num_classes=len(VOC)
        )
        state = read_state(path)
        own = model.state_dict()
        fit(model, {key: value for key, value in state.items() if not _spare(key, own)}, path)
        self._model = model.eval()
        self._dataset = dataset

    def scan(self) -> Iterator[Entry]:
        """Yield all images."""
        for image in self._dataset.images:
            yield Entry(str(image.id), image.file, None)

    def labels(self, entry: Entry, image: Image) -> Tensor:
        """Return the most probable class of each pixel of the squeezed image."""
        picture = preprocess(read_image(self._dataset.path(image)), MODEL_SIZE)
        with torch.inference_mode():
            classes = self._model(picture.unsqueeze(0))["out"][0].argmax(0)
        return torch.tensor(VOC_CHANNELS)[classes]


def _spare(key: str, own: Mapping[str, Tensor]) -> bool:
    """Say whether a tensor belongs to the second head, which only training uses."""
    return key.startswith("aux_classifier.") and key not in own
