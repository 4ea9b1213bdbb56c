"""Document frequencies by the label files of self-critical captioning programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from capscope.data.annotations import Image
from capscope.data.vocabulary import Vocabulary
from capscope.errors import CapscopeError
from capscope.files import write_json
from capscope.metrics.frequencies import DocumentFrequencies

END = "<eos>"
"""What the published script calls the end among words; its id is 0."""


def label_frequencies(
    images: Sequence[Image], vocabulary: Vocabulary
) -> dict[str, DocumentFrequencies]:
    """Count in how many images each n-gram of the references occurs, as the published script does.

    References are not cut to the length of labels, and their end counts as a word. Words that the
    vocabulary lacks become its unknown one.

    Returns
    -------
    dict
        ``words`` and ``idxs``: the same n-grams as words and as word ids.
    """
    if not images:
        raise CapscopeError("there are no images to count n-grams in")
    known = set(vocabulary.words[1:])
    numbers = {word: number for number, word in enumerate(vocabulary.words)}
    unknown = None if vocabulary.unk is None else vocabulary.words[vocabulary.unk]
    texts: list[list[list[str]]] = []
    for image in images:
        texts.append([])
        for tokens in image.tokens:
            missing = next((word for word in tokens if word not in known), None)
            if missing is not None and unknown is None:
                raise CapscopeError(
                    f"image {image.id}: the vocabulary has neither {missing!r} nor a word for "
                    "unknown ones: it is of other references"
                )
            texts[-1].append([word if word in known else str(unknown) for word in tokens])
    return {
        "words": DocumentFrequencies.of([[[*one, END] for one in image] for image in texts]),
        "idxs": DocumentFrequencies.of(
            [[[*(numbers[word] for word in one), 0] for one in image] for image in texts]
        ),
    }


def write_label_frequencies(path: Path, found: dict[str, DocumentFrequencies]) -> None:
    """Write both tables as one JSON n-gram file, which `read_frequencies` reads."""
    tables = {
        kind: {
            " ".join(map(str, ngram)): count
            for ngram, count in sorted(table.counts.items(), key=lambda entry: str(entry[0]))
        }
        for kind, table in found.items()
    }
    write_json(path, {"ref_len": found["words"].images, **tables}, indent=None)
