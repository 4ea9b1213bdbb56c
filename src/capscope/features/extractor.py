"""What turned images into the features of a store, whichever kind: found again from a folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow

from capscope.errors import CapscopeError
from capscope.features.grid import EXTRACTOR_FILE, WEIGHTS_FILE, GridExtractor
from capscope.features.regions import batch_of
from capscope.features.segments import SEGMENTS_FILE
from capscope.features.store import grid_boxes
from capscope.features.visual import Features
from capscope.files import atomic_path, read_json

if TYPE_CHECKING:
    from capscope.features.detector.protocol import Detector

    Extractor: TypeAlias = GridExtractor | Detector

PUBLISHED = ("bottom_up", "coco")
"""Detectors whose weights others trained."""
EXTRACTOR_FILES = (EXTRACTOR_FILE, WEIGHTS_FILE, SEGMENTS_FILE)
"""What a folder of features or a run holds of its extractor; the last, where it makes segments."""


def load_extractor(folder: Path) -> Extractor | None:
    """Rebuild the extractor that lies in a features or run folder; None if there is none.

    Raises
    ------
    CapscopeError
        Its files do not belong together, or it is of an unknown kind.
    """
    path = folder / EXTRACTOR_FILE
    if not path.exists():
        return None
    spec = read_json(path)
    if not isinstance(spec, dict) or "network" not in spec:
        raise CapscopeError(f"{path} does not describe an extractor: it names no network")
    if spec.get("kind", "grid") == "grid":
        return GridExtractor.load(folder)
    if spec["network"] == "small":
        from capscope.features.detector.small_detector import SmallDetector

        return SmallDetector.load(folder)
    if spec["network"] in PUBLISHED:
        from capscope.features.detector.build import load_detector

        return load_detector(folder)
    raise CapscopeError(f"{path} describes an unknown detector {spec['network']!r}")


def copy_extractor(source: Path, target: Path) -> Any:
    """Take the extractor of a features folder along, so that a run can read images by itself.

    Returns
    -------
    dict or None
        What describes it; None if the folder has none, and the target's own stays.
    """
    if not (source / EXTRACTOR_FILE).exists():
        return None
    for name in EXTRACTOR_FILES:
        (target / name).unlink(missing_ok=True)
        if (source / name).exists():
            with atomic_path(target / name) as temporary:
                shutil.copyfile(source / name, temporary)
    return read_json(target / EXTRACTOR_FILE)


def build_detector(settings: Mapping[str, Any], trained: Path | None = None) -> Detector:
    """Build the detector that the parameters ``features.regions`` name.

    Parameters
    ----------
    settings : mapping
        ``network``, ``weights``, ``regions``, ``selection``, and a section of each network.
    trained : Path, optional
        Folder of what ``capscope detector`` trained, for ``weights: trained``.
    """
    name, weights = settings["network"], settings["weights"]
    if (name == "small") != (weights == "trained"):
        raise CapscopeError(
            f"features.regions: network {name!r} with weights {weights!r}; 'trained' goes with "
            "'small' only"
        )
    if name == "small":
        if trained is None:
            raise CapscopeError("features.regions.network is small: give the folder of --detector")
        from capscope.features.detector.small_detector import SmallDetector

        return SmallDetector.trained(trained, settings["regions"])
    if name in PUBLISHED:
        from capscope.features.detector.build import published_detector

        return published_detector(settings)
    raise CapscopeError(f"unknown detector {name!r} in features.regions.network")


def look(extractor: Extractor, pictures: Sequence[NDArray[np.uint8]]) -> Features:
    """Return the features of RGB images (height, width, 3), as a store of them would."""
    if not isinstance(extractor, GridExtractor):
        return batch_of(extractor.detect(pictures), extractor.most)
    images = [extractor.preprocess(Pillow.fromarray(one)) for one in pictures]
    batches = [torch.stack(images)] if extractor.image_size else [one[None] for one in images]
    with torch.no_grad():
        cells = torch.cat([extractor(batch) for batch in batches])
        segments = extractor.segments(cells)
    boxes = grid_boxes(extractor.grid).expand(len(cells), -1, -1)
    return Features(cells, boxes, None, segments)
