"""Images, their references and splits, read from Karpathy-layout JSON."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from capscope.data.entries import read_entries
from capscope.data.tokens import clean_text, clean_tokens, tokenize
from capscope.errors import CapscopeError
from capscope.files import read_manifest
from capscope.params import expand_path

SPLITS = ("train", "restval", "val", "test", "shift")
"""Known splits. ``restval`` (COCO) counts as train; ``shift`` is the bias-free test of scenes."""
DATASET_FILE = "dataset.json"
INSTANCES_FILE = "instances.json"


@dataclass(frozen=True)
class Image:
    """One image and what humans said about it."""

    id: int
    file: str
    """Path relative to the image root, with forward slashes."""
    split: str
    references: tuple[str, ...]
    """The captions as written, on one line each."""
    tokens: tuple[tuple[str, ...], ...]
    """The words of each reference."""
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True)
class Skipped:
    """An image, or one reference of it, that was left out, and why."""

    image_id: int
    file: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """Images with references, under one folder of image files."""

    name: str
    root: Path
    images: tuple[Image, ...]
    skipped: tuple[Skipped, ...] = ()
    cleaned: int = 0
    """References whose text `clean_text` changed: line separators, controls, double blanks."""

    def __post_init__(self) -> None:
        seen: dict[int, Image] = {}
        for image in self.images:
            other = seen.setdefault(image.id, image)
            if other is not image:
                raise CapscopeError(
                    f"{self.name}: image id {image.id} occurs twice ({other.file}, {image.file})"
                )

    def split(self, *names: str) -> tuple[Image, ...]:
        """Return the images of one or more splits, in file order; ``train`` includes restval."""
        for name in names:
            _check_split(name, self.name)
        wanted = {*names, *(["restval"] if "train" in names else [])}
        return tuple(image for image in self.images if image.split in wanted)

    def by_id(self, image_id: int) -> Image:
        """Return one image; an unknown id is a `CapscopeError`."""
        if image_id not in self._by_id:
            raise CapscopeError(f"data set {self.name} has no image with id {image_id}")
        return self._by_id[image_id]

    @cached_property
    def _by_id(self) -> dict[int, Image]:
        return {image.id: image for image in self.images}

    @cached_property
    def _resolved_root(self) -> Path:
        return self.root.resolve()

    def path(self, image: Image) -> Path:
        """Return where the file of `image` is; a path that leaves the root is refused."""
        path = self.root / relative_path(image.file, f"{self.name}: image {image.id}")
        if not path.resolve().is_relative_to(self._resolved_root):
            raise CapscopeError(
                f"image {image.id}: {image.file} is a link that leaves the image folder "
                f"{self.root}; put the file there, or name the folder that holds it"
            )
        return path


def relative_path(text: str, where: str) -> str:
    """Return `text` if it is a plain relative path that stays below its root."""
    path = PurePosixPath(text)
    harmful = "\\" in text or "\0" in text or re.match(r"[A-Za-z]:", text)
    if not path.parts or path.is_absolute() or ".." in path.parts or harmful:
        raise CapscopeError(f"{where}: {text!r} is not a path inside the image folder")
    return path.as_posix()


def read_karpathy(path: Path, image_root: Path, name: str, *, policy: str = "fail") -> Dataset:
    """Read a Karpathy-layout JSON (``dataset_coco.json``, ``dataset_flickr30k.json``).

    The id of an image is its ``cocoid``, or ``imgid`` where there is none. ``tokens`` are taken
    as they are; where a sentence has none, `tokenize` makes them from ``raw``.

    Parameters
    ----------
    policy : {"fail", "skip"}
        What to do about an empty reference or an image without any: stop, or leave it out and
        list it in ``skipped``. Everything else that is wrong always stops.

    Raises
    ------
    CapscopeError
        Naming the file and the image: not this layout, id missing or used twice, unknown split,
        path that leaves the image folder, and under ``fail`` an empty or missing reference.
    """
    return _dataset(read_entries(path, "images"), path, image_root, name, policy)


def parse_karpathy(
    loaded: Any, path: Path, image_root: Path, name: str, *, policy: str = "fail"
) -> Dataset:
    """Check a loaded Karpathy-layout JSON as `read_karpathy` does; `path` names it in errors."""
    entries = loaded.get("images") if isinstance(loaded, dict) else None
    if not isinstance(entries, list):
        raise CapscopeError(f"{path} is not Karpathy-layout JSON: no list 'images'")
    return _dataset(entries, path, image_root, name, policy)


def _dataset(
    entries: Iterable[Any], path: Path, image_root: Path, name: str, policy: str
) -> Dataset:
    reader = _Reader(path, policy)
    images = tuple(reader.read(entries))
    if not images:
        raise CapscopeError(f"{path} holds no usable image")
    return Dataset(name, image_root, images, tuple(reader.skipped), reader.cleaned)


def open_dataset(data_dir: Path, params: Mapping[str, Any]) -> Dataset:
    """Open what ``capscope data`` made: ``dataset.json`` of a finished data folder."""
    read_manifest(data_dir, "data")
    settings = params["dataset"]
    images = settings[settings["reader"]].get("images")
    root = expand_path(images) if images else data_dir
    return read_karpathy(data_dir / DATASET_FILE, root, settings["name"])


def karpathy_json(dataset: Dataset) -> dict[str, Any]:
    """Return `dataset` in Karpathy layout, ready to be written as JSON."""
    entries: list[dict[str, Any]] = []
    sentence_id = 0
    for index, image in enumerate(dataset.images):
        folder, _, filename = image.file.rpartition("/")
        sentences = []
        for raw, tokens in zip(image.references, image.tokens, strict=True):
            sentence = {"raw": raw, "tokens": list(tokens), "imgid": index, "sentid": sentence_id}
            sentences.append(sentence)
            sentence_id += 1
        entry = {
            "filename": filename,
            "filepath": folder,
            "cocoid": image.id,
            "imgid": index,
            "split": image.split,
            "sentids": [sentence["sentid"] for sentence in sentences],
            "sentences": sentences,
        }
        if image.width and image.height:
            entry |= {"width": image.width, "height": image.height}
        entries.append(entry)
    return {"dataset": dataset.name, "images": entries}


class _Reader:
    """Reads the entries of one Karpathy JSON, counting what it cleans and leaves out."""

    def __init__(self, path: Path, policy: str) -> None:
        self.path = path
        self.policy = policy
        self.skipped: list[Skipped] = []
        self.cleaned = 0

    def read(self, entries: Iterable[Any]) -> Iterator[Image]:
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise CapscopeError(f"{self.path}: images[{number}] is not an object")
            image = self._image(entry, number)
            if image.references:
                yield image
            else:
                self._leave_out(image, "no reference")

    def _image(self, entry: Mapping[str, Any], number: int) -> Image:
        identifier = entry.get("cocoid", entry.get("imgid"))
        if type(identifier) is not int or not 0 <= identifier < 2**63:
            raise CapscopeError(
                f"{self.path}: images[{number}] needs a whole number as 'cocoid' or 'imgid', "
                f"found {identifier!r}"
            )
        where = f"{self.path}: image {identifier}"
        filename, folder = entry.get("filename"), entry.get("filepath", "")
        if not isinstance(filename, str) or not isinstance(folder, str):
            raise CapscopeError(f"{where}: 'filename' and 'filepath' must be strings")
        file = relative_path(f"{folder}/{filename}" if folder else filename, where)
        split = _check_split(entry.get("split"), where)
        size = [entry.get("width"), entry.get("height")]
        if any(side is not None and (type(side) is not int or side < 1) for side in size):
            raise CapscopeError(f"{where}: 'width' and 'height' must be positive whole numbers")
        bare = Image(identifier, file, split, (), (), *size)
        references, tokens = self._references(entry.get("sentences", []), bare, where)
        return Image(identifier, file, split, references, tokens, *size)

    def _references(
        self, sentences: Any, image: Image, where: str
    ) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        if not isinstance(sentences, list):
            raise CapscopeError(f"{where}: 'sentences' must be a list")
        references, all_tokens = [], []
        for number, sentence in enumerate(sentences):
            text, tokens = self._sentence(sentence, f"{where}: sentences[{number}]")
            if tokens:
                references.append(text)
                all_tokens.append(tuple(map(sys.intern, tokens)))  # a word is kept once
            else:
                self._leave_out(image, f"reference {number} is empty")
        return tuple(references), tuple(all_tokens)

    def _sentence(self, sentence: Any, where: str) -> tuple[str, list[str]]:
        if not isinstance(sentence, dict):
            raise CapscopeError(f"{where} is not an object")
        raw, tokens = sentence.get("raw"), sentence.get("tokens")
        if not isinstance(raw, str | None) or not _strings_or_none(tokens):
            raise CapscopeError(f"{where}: 'raw' must be a string and 'tokens' a list of strings")
        words = clean_tokens(tokens) if tokens is not None else tokenize(clean_text(raw or ""))
        text = clean_text(raw or "") or " ".join(words)
        self.cleaned += raw is not None and text != raw.strip()
        return text, words

    def _leave_out(self, image: Image, reason: str) -> None:
        if self.policy == "fail":
            raise CapscopeError(
                f"{self.path}: image {image.id} ({image.file}): {reason}. Mend the file, or set "
                "dataset.on_unreadable=skip to leave it out"
            )
        self.skipped.append(Skipped(image.id, image.file, reason))


def _strings_or_none(value: Any) -> bool:
    return value is None or (
        isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    )


def _check_split(split: Any, where: str) -> str:
    if split not in SPLITS:
        raise CapscopeError(f"{where}: unknown split {split!r}; known: {', '.join(SPLITS)}")
    known: str = split
    return known
