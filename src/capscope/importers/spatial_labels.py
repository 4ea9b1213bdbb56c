"""Label files of self-critical captioning programs as a vocabulary that is trained with."""

from __future__ import annotations

from pathlib import Path

from capscope.data.annotations import Dataset
from capscope.data.captions import CAPTIONS_FILE, write_captions
from capscope.data.labels import read_labels
from capscope.data.vocabulary import VOCABULARY_FILE
from capscope.errors import CapscopeError
from capscope.files import MANIFEST, write_json, write_manifest

NAMED = 5
"""How many ids an error names."""


def import_labels(words: Path, labels: Path, out: Path, dataset: Dataset | None = None) -> None:
    """Turn label files into what ``capscope vocabulary`` makes, with their word ids.

    Parameters
    ----------
    words, labels : Path
        The JSON and the HDF5 file of one run of the script.
    out : Path
        Gets ``vocabulary.json``, ``captions.h5`` and a manifest.
    dataset : Dataset, optional
        What is to be trained on: its training images must be among those of the labels.

    Raises
    ------
    CapscopeError
        Naming the file that is not of this layout or does not fit the other, or the images.
    """
    content = read_labels(words, labels)
    if dataset is not None:
        missing = [image.id for image in dataset.split("train") if image.id not in content.captions]
        if missing:
            named = ", ".join(map(str, missing[:NAMED])) + (", ..." if missing[NAMED:] else "")
            raise CapscopeError(
                f"{labels} has no references of {len(missing)} training images of "
                f"{dataset.name} (ids {named}): the labels are of another data set"
            )
    (out / MANIFEST).unlink(missing_ok=True)
    write_json(out / VOCABULARY_FILE, content.vocabulary.to_json())
    write_captions(out / CAPTIONS_FILE, content.captions)
    write_manifest(
        out,
        "vocabulary",
        params={"imported": "labels"},
        inputs={"words": words, "labels": labels},
        words=len(content.vocabulary),
        vocabulary_sha256=content.vocabulary.sha256,
        images=len(content.captions.image_ids),
        references=len(content.captions.labels),
    )
