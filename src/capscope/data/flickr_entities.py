"""Flickr30K Entities (Plummer et al. 2015): which phrases of the references have which boxes.

A sentence reads ``[/EN#12/people A young child] in [/EN#13/scene a pool] .``: the number is that of
an entity, which may have phrases in several of an image's five sentences. An annotation lists
boxes with the entities they show; ``scene`` and ``nobndbox`` mark entities without a box.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from tqdm import tqdm

from capscope.data.tokens import tokenize
from capscope.errors import CapscopeError

NAME = "Flickr30K Entities"
"""What the instances made here say they are."""
SENTENCES, ANNOTATIONS = "Sentences", "Annotations"
"""Subfolders of the data set: a text file and an XML file for each image."""

_PHRASE = re.compile(r"\[/EN#(\d+)((?:/[^\s/\]]+)+) ([^\]]+)\]")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class Phrase(NamedTuple):
    """Some words of a sentence that mean an entity."""

    entity: str
    kinds: tuple[str, ...]
    """``people``, ``clothing``, ``bodyparts``, ``animals``, ``vehicles``, ``instruments``,
    ``scene``, ``other`` or ``notvisual``."""
    words: tuple[str, ...]


class EntityBox(NamedTuple):
    """A box and the entities in it."""

    entities: tuple[str, ...]
    corners: tuple[float, float, float, float]
    """xmin, ymin, xmax, ymax in pixels."""


class Annotation(NamedTuple):
    """What is marked in an image."""

    width: int
    height: int
    boxes: tuple[EntityBox, ...]


Namer = Callable[[Sequence[str]], Sequence[str]]
"""Finds the object classes that some words name, such as ``flickr30k_words().named``."""


def is_entities_folder(path: Path) -> bool:
    """Tell whether a folder holds Flickr30K Entities."""
    return (path / SENTENCES).is_dir() and (path / ANNOTATIONS).is_dir()


def read_phrases(path: Path) -> list[list[Phrase]]:
    """Return the phrases of each sentence of an image."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CapscopeError(f"cannot read {path}: {error}") from error
    sentences = [
        [
            Phrase(entity, tuple(kinds[1:].split("/")), tuple(tokenize(words)))
            for entity, kinds, words in _PHRASE.findall(line)
        ]
        for line in lines
    ]
    for number, (line, phrases) in enumerate(zip(lines, sentences, strict=True), start=1):
        if line.count("[/EN#") != len(phrases):
            raise CapscopeError(
                f"{path}: line {number} has a phrase that does not read "
                f"[/EN#number/kind words]: {line[:100]!r}"
            )
    return sentences


def read_annotation(path: Path) -> Annotation:
    """Return the boxes of an image.

    Raises
    ------
    CapscopeError
        Naming the file: not XML of this layout, a box outside of reason, a document type
        (which could make the reader's memory explode).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CapscopeError(f"cannot read {path}: {error.strerror}") from error
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise CapscopeError(f"{path} declares a document type; annotations have none")
    try:
        root = ElementTree.fromstring(data)
        size = root.find("size")
        if root.tag != "annotation" or size is None:
            raise ValueError("no <annotation> with a <size>")
        width, height = int(_text(size, "width")), int(_text(size, "height"))
        return Annotation(width, height, tuple(_boxes(root)))
    except (ElementTree.ParseError, ValueError) as error:
        raise CapscopeError(f"{path} is no annotation of Flickr30K Entities: {error}") from error


def _boxes(root: ElementTree.Element) -> Iterator[EntityBox]:
    for entry in root.findall("object"):
        box = entry.find("bndbox")
        if box is None:
            continue
        entities = tuple(name.text.strip() for name in entry.findall("name") if name.text)
        x_min, y_min, x_max, y_max = (float(_text(box, corner)) for corner in _CORNERS)
        if not (0 <= x_min <= x_max < 1e6 and 0 <= y_min <= y_max < 1e6):
            raise ValueError(f"the impossible box {(x_min, y_min, x_max, y_max)}")
        yield EntityBox(entities, (x_min, y_min, x_max, y_max))


def _text(element: ElementTree.Element, tag: str) -> str:
    text = element.findtext(tag)
    if text is None:
        raise ValueError(f"<{element.tag}> without <{tag}>")
    return text


def entities_instances(folder: Path, files: Mapping[int, str], named: Namer) -> dict[str, Any]:
    """Return Flickr30K Entities as COCO instances: a category is what most phrases name.

    Parameters
    ----------
    folder : Path
        With ``Sentences/`` and ``Annotations/``.
    files : mapping of image id to file name
        ``1000092795.jpg`` has ``Sentences/1000092795.txt`` and ``Annotations/1000092795.xml``.
    named : callable
        Finds classes in the words of a phrase; the last one is the phrase's. Boxes of entities
        that none of their phrases gives a class are left out.

    Raises
    ------
    CapscopeError
        None of the images is in the folder, or a file of one cannot be read.
    """
    pictures: list[dict[str, Any]] = []
    found: list[tuple[int, str, EntityBox]] = []
    for image_id, file in tqdm(files.items(), desc="entities", unit="image", delay=2):
        stem = Path(file).stem
        sentences = folder / SENTENCES / f"{stem}.txt"
        if not sentences.exists():
            continue
        annotation = read_annotation(folder / ANNOTATIONS / f"{stem}.xml")
        size = {"width": annotation.width, "height": annotation.height}
        pictures.append({"id": image_id, "file_name": file, **size})
        classes = entity_classes(read_phrases(sentences), named)
        for box in annotation.boxes:
            names = {classes[entity] for entity in box.entities if entity in classes}
            found += [(image_id, name, box) for name in sorted(names)]
    if not pictures:
        raise CapscopeError(f"{folder} has no sentences of any of the {len(files)} images")
    numbers = {name: k for k, name in enumerate(sorted({name for _, name, _ in found}), start=1)}
    return {
        "info": {"description": NAME},
        "images": pictures,
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
        "annotations": [
            _instance(number, image_id, numbers[name], box)
            for number, (image_id, name, box) in enumerate(found, start=1)
        ],
    }


def entity_classes(sentences: Sequence[Sequence[Phrase]], named: Namer) -> dict[str, str]:
    """Return the class of each entity: the one that most of its phrases name last."""
    votes: dict[str, Counter[str]] = {}
    for phrase in (phrase for phrases in sentences for phrase in phrases):
        classes = named(phrase.words)
        if classes:
            votes.setdefault(phrase.entity, Counter())[classes[-1]] += 1
    return {entity: counted.most_common(1)[0][0] for entity, counted in votes.items()}


def _instance(number: int, image_id: int, category: int, box: EntityBox) -> dict[str, Any]:
    x_min, y_min, x_max, y_max = box.corners
    width, height = x_max - x_min, y_max - y_min
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category,
        "bbox": [x_min, y_min, width, height],
        "area": width * height,
        "iscrowd": 0,
    }
