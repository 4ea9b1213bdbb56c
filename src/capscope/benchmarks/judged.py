"""Which words of captions are right: object words, and on drawn scenes their colours and sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from capscope.benchmarks.context import Context
from capscope.benchmarks.depiction import (
    Depiction,
    WordReader,
    is_drawn,
    scene_depictions,
    word_reader,
)
from capscope.data.annotations import INSTANCES_FILE, Image
from capscope.data.entities import Instances, read_instances
from capscope.explain.words import Word

RIGHT, WRONG, HALLUCINATED = "right", "wrong", "hallucinated"


class JudgedWord(NamedTuple):
    """A word of a caption that can be judged."""

    split: str
    image_id: int
    position: int
    """Among the words of the caption."""
    word: str
    kind: str
    verdict: str
    """right | wrong (a property that the object has not) | hallucinated (no such object)."""


def shown_names(image: Image, reader: WordReader, boxes: Instances | None) -> set[str]:
    """Return the objects of an image: those that its boxes or one of its references name."""
    names = {thing.category for thing in boxes.objects(image.id)} if boxes else set()
    for reference in image.tokens:
        names |= {name for word in reader(reference) if word.kind == "noun" for name in word.about}
    return names


def judged_words(context: Context) -> Iterator[JudgedWord]:
    """Yield the words of the explained captions that can be judged.

    An object word is right if the image shows the object or a reference names it. A colour or size
    is right if such an object is in the drawn scene; photographs do not tell.
    """
    reader = word_reader(context.data_dir)
    path = context.data_dir / INSTANCES_FILE
    boxes = read_instances(path) if path.exists() else None
    for split in dict.fromkeys(store.split for store in context.stores):
        store = next(store for store in context.stores if store.split == split)
        depictions = {}
        if is_drawn(context.data_dir):
            ids = store.image_ids.tolist()
            depictions = scene_depictions(context.data_dir, context.dataset, ids)
        captions = store.captions()
        for image_id, ids_of_words, length in zip(*captions, strict=True):
            spoken = [context.vocabulary.words[word_id] for word_id in ids_of_words[:length]]
            shown = shown_names(context.dataset.by_id(int(image_id)), reader, boxes)
            for word in reader(spoken):
                verdict = _verdict(word, shown, depictions.get(int(image_id)))
                if verdict:
                    place = (split, int(image_id), word.position)
                    yield JudgedWord(*place, spoken[word.position], word.kind, verdict)


def _verdict(word: Word, shown: set[str], depiction: Depiction | None) -> str | None:
    """Return whether a word is right, or None where nobody knows."""
    claims = word.colour is not None or word.size is not None
    if word.kind != "noun" and not (claims and depiction):
        return None
    if not shown & set(word.about):
        return HALLUCINATED
    if claims and depiction and not depiction.meant(word).any():
        return WRONG
    return RIGHT
