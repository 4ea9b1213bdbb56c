"""From the features of others to a feature store, in one pass, whatever their size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from capscope.data.annotations import Dataset, Image, Skipped, open_dataset
from capscope.data.karpathy import SKIPPED_FILE, write_skipped
from capscope.errors import CapscopeError
from capscope.features.extractor import EXTRACTOR_FILES
from capscope.features.importing.grids import Hdf5Grids, NpzGrids
from capscope.features.importing.instances import InstanceLabels
from capscope.features.importing.kept import KeptStore
from capscope.features.importing.labels import LabelSource, ModelLabels, PanopticLabels, SceneMasks
from capscope.features.importing.per_image import Hdf5Regions, NpzRegions
from capscope.features.importing.segments import Hdf5Segments, NpySegments
from capscope.features.importing.sources import (
    DamagedFeaturesError,
    Entry,
    ImageNames,
    Source,
    size_finder,
)
from capscope.features.importing.tsv import TsvSource
from capscope.features.regions import NAMES, Regions, read_names
from capscope.features.store import create_region_store, create_store
from capscope.files import MANIFEST, write_manifest

BATCH = 16
"""Images that are read before they are written."""

REGION_FORMATS: dict[str, Callable[[Path, Dataset], Any]] = {
    "tsv": lambda path, dataset: TsvSource(path),
    "regions_hdf5": lambda path, dataset: Hdf5Regions(path, size_finder(dataset)),
    "regions_npz": lambda path, dataset: NpzRegions(path, size_finder(dataset)),
}
KEPT = "store"
"""The format of a store of ours, whose features are kept."""
GRID_FORMATS: dict[str, Callable[[Path, bool], Source[Tensor]]] = {
    "grid_hdf5": Hdf5Grids,
    "grid_npz": lambda path, parity: NpzGrids(path),
}
SEGMENT_FORMATS: dict[str, Callable[[Path, Dataset], Source[Tensor]]] = {
    "segments_hdf5": lambda path, dataset: Hdf5Segments(path),
    "segments_npy": lambda path, dataset: NpySegments(path),
    "segments_panoptic": lambda path, dataset: PanopticLabels(path),
    "segments_instances": lambda path, dataset: InstanceLabels(path),
    "segments_masks": SceneMasks,
    "segments_torchvision": ModelLabels,
}
FORMATS = (KEPT, *REGION_FORMATS, *GRID_FORMATS, *SEGMENT_FORMATS)


class Chosen(NamedTuple):
    """One image with its entry in every source."""

    image: Image
    entries: tuple[Entry, ...]


def import_features(
    sources: Sequence[tuple[str, Path]],
    data_dir: Path,
    params: Mapping[str, Any],
    out: Path,
    *,
    parity: bool = False,
) -> None:
    """Write the store of a data set's features from files of others, and its manifest.

    Parameters
    ----------
    sources : sequence of (format, path)
        A format of `FORMATS`: regions or a grid, and segments besides if there are any.
    data_dir : Path
        From ``capscope data``. Features of other images are counted and left out.
    params : mapping
        ``features.grid`` or ``features.regions`` gives the type, and how many regions at most.
    out : Path
    parity : bool
        As published, where a format says so.

    Raises
    ------
    CapscopeError
        Naming file and line or dataset: an entry that is damaged (under
        ``dataset.on_unreadable: skip`` its image is left out and listed in ``skipped.csv``), two
        different entries of one image, images of the data set without features.
    """
    dataset = open_dataset(data_dir, params)
    policy = params["dataset"]["on_unreadable"]
    with ExitStack() as stack:
        job = _Job(sources, dataset, params, parity)
        stack.callback(job.close)
        found, extra = job.choose()
        skipped: list[Skipped] = []
        missing = [image for image in dataset.images if image.id not in found]
        if missing and policy == "fail":
            raise CapscopeError(
                f"{len(missing)} of {len(dataset.images)} images of {data_dir} have no features: "
                f"{job.lacking(missing)}; import all parts, or set dataset.on_unreadable=skip"
            )
        skipped += [Skipped(image.id, image.file, "no features") for image in missing]
        chosen = list(found.values())
        (out / MANIFEST).unlink(missing_ok=True)  # not before: a store may be its own source
        if sources[0][0] != KEPT:
            for name in EXTRACTOR_FILES:  # of an extraction before; these features are not its
                (out / name).unlink(missing_ok=True)
        try:
            job.write(out, chosen)
        except DamagedFeaturesError:
            if policy == "fail":
                raise
            damaged = job.damaged(chosen)
            skipped += [Skipped(one.image.id, one.image.file, why) for one, why in damaged]
            bad = {one.image.id for one, _ in damaged}
            job.write(out, [one for one in chosen if one.image.id not in bad])
        write_skipped(out / SKIPPED_FILE, skipped)
        write_manifest(
            out,
            "features",
            params={**job.settings, "on_unreadable": policy, "parity": parity},
            inputs={"data": data_dir / MANIFEST},
            attributes=job.attributes,
            sources=[[name, path.name] for name, path in sources],
            images=len(dataset.images) - len(skipped),
            skipped=len(skipped),
            left_out=extra,
        )


class _Job:
    """The sources of one import, and how they are written."""

    def __init__(
        self,
        sources: Sequence[tuple[str, Path]],
        dataset: Dataset,
        params: Mapping[str, Any],
        parity: bool,
    ) -> None:
        (form, path), *rest = sources
        for name, _ in sources:
            if name not in FORMATS:
                raise CapscopeError(f"unknown format {name!r}; there are: {', '.join(FORMATS)}")
        second = [name in SEGMENT_FORMATS for name, _ in rest]
        if form in SEGMENT_FORMATS or len(rest) > 1 or not all(second):
            raise CapscopeError(
                "import regions, a grid or a store first, and segments of the same images besides, "
                "if any"
            )
        self.dataset = dataset
        self.paths = [path for _, path in sources]
        self.known: list[set[int]] = []
        self.attributes: dict[str, Any] = {"network": "imported", "layer": form}
        main: Any
        if form == KEPT:
            main = KeptStore(path)
            self.regions = main.store.kind == "regions"
            self.attributes = main.store.attributes
        elif form in REGION_FORMATS:
            main, self.regions = REGION_FORMATS[form](path, dataset), True
        else:
            main, self.regions = GRID_FORMATS[form](path, parity), False
        self.settings = params["features"]["regions" if self.regions else "grid"]
        self.sources: list[Any] = [main]
        self.sources += [SEGMENT_FORMATS[name](path, dataset) for name, path in rest]
        if rest:
            self.attributes["segments"] = rest[0][0]

    def close(self) -> None:
        for source in self.sources:
            source.close()

    def choose(self) -> tuple[dict[int, Chosen], int]:
        """Return the images with an entry in every source, and how many entries are of others."""
        names = ImageNames(self.dataset)
        by_source, extra = [], 0
        for source in self.sources:
            found: dict[int, tuple[Image, Entry]] = {}
            for entry in source.scan():
                image = names.find(entry.name)
                if image is None:
                    extra += 1
                    continue
                before = found.setdefault(image.id, (image, entry))[1]
                if before is not entry:
                    found[image.id] = image, self._better(source, image, before, entry)
            by_source.append(found)
            self.known.append(set(found))
        chosen = {
            image_id: Chosen(image, (entry, *(other[image_id][1] for other in by_source[1:])))
            for image_id, (image, entry) in by_source[0].items()
            if all(image_id in other for other in by_source[1:])
        }
        if not any(self.known):
            raise CapscopeError(
                f"none of {extra} entries is of an image of the data set {self.dataset.name}"
            )
        if not chosen:
            raise CapscopeError(
                f"no image of the data set {self.dataset.name} is in both "
                f"{' and '.join(map(str, self.paths))}: {self.lacking(self.dataset.images)}"
            )
        return chosen, extra

    def lacking(self, images: Sequence[Image]) -> str:
        """Say which of some images each source has nothing of."""
        told = []
        for path, known in zip(self.paths, self.known, strict=True):
            ids = [str(image.id) for image in images if image.id not in known]
            if ids:
                shown = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
                told.append(f"{path} lacks {len(ids)} (image {shown})")
        return "; ".join(told)

    def _better(self, source: Source[Any], image: Image, one: Entry, other: Entry) -> Entry:
        """Return which of two entries of an image counts: the only sound one, or either."""
        if one.checksum is not None and one.checksum == other.checksum:
            return one
        sound = [entry for entry in (one, other) if self._why(source, image, entry) is None]
        if len(sound) == 2:
            raise CapscopeError(
                f"image {image.id} has two different entries: {one.where}; {other.where}"
            )
        return sound[0] if sound else one

    def _why(self, source: Source[Any], image: Image, entry: Entry) -> str | None:
        try:
            source.read(entry, image)
        except DamagedFeaturesError as error:
            return str(error)
        return None

    def damaged(self, chosen: Sequence[Chosen]) -> list[tuple[Chosen, str]]:
        """Read everything once and return what cannot be used, and why."""
        found = []
        first: list[Any] | None = None
        for one in tqdm(chosen, unit="image", desc="checking"):
            try:
                read = self._read(one)
                first = first or read
                self._fits(read, first, one)
            except DamagedFeaturesError as error:
                found.append((one, str(error)))
        if 2 * len(found) > len(chosen):
            raise CapscopeError(
                f"{len(found)} of {len(chosen)} entries cannot be used; the first: {found[0][1]}"
            )
        return found

    def _read(self, one: Chosen) -> list[Any]:
        read: list[Any] = []
        for source, entry in zip(self.sources, one.entries, strict=True):
            if isinstance(source, LabelSource) and not self.regions:
                side = math.isqrt(len(read[0]))
                source.grid = self.attributes.get("grid") or (side, side)
            read.append(source.read(entry, one.image))
        return read

    def _fits(self, read: list[Any], first: list[Any], one: Chosen) -> None:
        """Refuse features of another shape than the first image's."""
        for own, other, entry in zip(read, first, one.entries, strict=True):
            if isinstance(own, Regions):
                shape, expected = own.cells.shape[1:], other.cells.shape[1:]
                if len(own.cells) > self.settings["regions"]:
                    raise CapscopeError(
                        f"{entry.where} has {len(own.cells)} regions; set features.regions.regions"
                        " to the most that an image may have"
                    )
            else:
                shape, expected = own.shape, other.shape
            if shape != expected:
                what = "features" if own is read[0] else "segments (cells, classes)"
                raise DamagedFeaturesError(
                    f"{entry.where}: {what} {tuple(shape)}, those of the first image are "
                    f"{tuple(expected)}"
                )

    def _lie_on_the_grid(self, first: list[Any], entries: Sequence[Entry]) -> None:
        """Refuse segments of other cells than those of the grid."""
        if len(first) > 1 and not self.regions and len(first[0]) != len(first[1]):
            raise CapscopeError(
                f"{entries[1].where} has segments of {len(first[1])} cells, but the grid of "
                f"{entries[0].where} has {len(first[0])}: both flows need the same cells; pool the "
                "segments to the grid, or make them from masks or annotations (docs/features.md)"
            )

    def write(self, out: Path, chosen: Sequence[Chosen]) -> None:
        """Write the store."""
        first = self._read(chosen[0])
        self._lie_on_the_grid(first, chosen[0].entries)
        with ExitStack() as stack:
            writer = stack.enter_context(self._create(out, chosen, first))
            progress = stack.enter_context(tqdm(total=len(chosen), unit="image", desc="import"))
            for start in range(0, len(chosen), BATCH):
                some = chosen[start : start + BATCH]
                batch = [self._read(one) for one in some]
                for read, one in zip(batch, some, strict=True):
                    self._fits(read, first, one)
                main, *segments = zip(*batch, strict=True)
                rest = [torch.stack(part) for part in segments]
                writer.append(list(main) if self.regions else torch.stack(main), *rest)
                progress.update(len(some))

    def _create(self, out: Path, chosen: Sequence[Chosen], first: list[Any]) -> Any:
        ids = [one.image.id for one in chosen]
        segments = tuple(first[1].shape) if len(first) > 1 else None
        if not self.regions:
            side = math.isqrt(len(first[0]))
            self.attributes.setdefault("grid", [side, side])
            return create_store(
                out,
                ids,
                cells=len(first[0]),
                dim=first[0].shape[1],
                dtype=self.settings["dtype"],
                attributes=self.attributes,
                segments=segments,
            )
        details = self.sources[0].details
        for name in NAMES:
            path = self.settings["bottom_up"][name.replace("class", "object")]
            if path and name not in self.attributes and name.replace("names", "ids") in details:
                self.attributes[name] = read_names(path)
        return create_region_store(
            out,
            ids,
            regions=self.settings["regions"],
            dim=first[0].cells.shape[1],
            dtype=self.settings["dtype"],
            attributes=self.attributes,
            details=details,
            segments=segments,
        )
