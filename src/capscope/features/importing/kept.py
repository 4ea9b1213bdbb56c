"""A feature store of ours as a source, so that segments can be added to what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from capscope.data.annotations import Image
from capscope.features.importing.sources import Entry
from capscope.features.regions import DETAILS, Regions
from capscope.features.store import FeatureStore


class KeptStore:
    """Reads what ``capscope features`` made."""

    def __init__(self, path: Path) -> None:
        self.store = FeatureStore.open(path)
        self.details: tuple[str, ...] = ()
        if self.store.kind == "regions":
            some = self.store.regions(int(self.store.ids[0]))
            self.details = tuple(name for name in DETAILS if getattr(some, name) is not None)

    def scan(self) -> Iterator[Entry]:
        """Yield the images in the order of the store."""
        for image_id in self.store.ids.tolist():
            yield Entry(str(image_id), f"{self.store.path}, image {image_id}", image_id)

    def read(self, entry: Entry, image: Image) -> Tensor | Regions:
        """Return the cells (h*w, D) or the regions of one image."""
        if self.store.kind == "regions":
            return self.store.regions(entry.place)
        return self.store.read([entry.place]).cells[0]

    def close(self) -> None:
        """Nothing stays open."""
