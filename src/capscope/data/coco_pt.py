"""``coco.pt``: pictures and one caption each as tensors, the data of the recurrent family.

The file is a dictionary of ``train_images`` (N, 3, H, W) uint8, ``train_captions`` (N, L) int64,
the same of ``val``, and ``vocab`` with ``idx_to_token`` and ``token_to_idx``. A caption is
``<START>``, words, ``<END>``, then ``<NULL>``. An HDF5 file with the same names is read as well;
`capscope.data.coco_pt_build` writes both.

The file has no image ids. Row i of ``train`` gets the id i, row i of ``val`` `VAL_ID` + i.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image as Pillow
from tqdm import tqdm

from capscope.data.annotations import DATASET_FILE, Dataset, Image, Skipped, karpathy_json
from capscope.data.images import map_ahead
from capscope.data.karpathy import SKIPPED_FILE, write_skipped
from capscope.data.sources import annotation_files
from capscope.data.vocabulary import VOCABULARY_FILE, Vocabulary
from capscope.errors import CapscopeError
from capscope.files import MANIFEST, write_json, write_manifest, writing
from capscope.tensors import read_foreign

if TYPE_CHECKING:
    from torch import Tensor

VAL_ID = 1_000_000
"""Id of the first image of ``val``."""
SPLITS = ("train", "val")
SPECIAL = {"pad": "<NULL>", "start": "<START>", "end": "<END>", "unk": "<UNK>"}
"""Special words of the file, by what they are to us."""
UNKNOWN = "<unk>"
"""How a word that the file does not know is written in ``dataset.json``."""
IMAGES = "images"


class CocoPt(NamedTuple):
    """What a ``coco.pt`` holds, checked.

    Attributes
    ----------
    images : dict of str to Tensor (N, 3, H, W) uint8
        Of each split, RGB.
    captions : dict of str to list of list of int
        Word ids of each row, without start, end and padding.
    vocabulary : Vocabulary
        With the word ids of the file.
    """

    images: dict[str, Tensor]
    captions: dict[str, list[list[int]]]
    vocabulary: Vocabulary


def read_coco_pt(path: Path) -> CocoPt:
    """Read a ``coco.pt``, or an HDF5 file of the same layout.

    Nothing in the file is run: it is read in a process of its own, as `read_foreign` says.

    Raises
    ------
    CapscopeError
        Naming the file, and the key, row or word that is wrong.
    """
    loaded = read_foreign(path)
    needed = [f"{split}_{what}" for split in SPLITS for what in ("images", "captions")]
    if not isinstance(loaded, dict):
        raise CapscopeError(f"{path} is no coco.pt: it holds a {type(loaded).__name__}, no dict")
    missing = [key for key in (*needed, "vocab") if key not in loaded]
    if missing:
        raise CapscopeError(f"{path} is no coco.pt: it lacks {', '.join(missing)}")
    vocabulary = _vocabulary(loaded["vocab"], path)
    images, captions = {}, {}
    for split in SPLITS:
        images[split] = _images(loaded[f"{split}_images"], f"{path}: {split}_images")
        captions[split] = _captions(
            loaded[f"{split}_captions"], vocabulary, f"{path}: {split}_captions"
        )
        if len(images[split]) != len(captions[split]):
            raise CapscopeError(
                f"{path}: {len(images[split])} {split}_images, {len(captions[split])} "
                f"{split}_captions"
            )
    sizes = {split: tuple(images[split].shape[2:]) for split in SPLITS}
    if len(set(sizes.values())) > 1:
        raise CapscopeError(
            f"{path}: images of two sizes, train {sizes['train']}, val {sizes['val']}"
        )
    if len(images["train"]) > VAL_ID:
        raise CapscopeError(f"{path}: more than {VAL_ID:,} train_images; ids are dealt for fewer")
    return CocoPt(images, captions, vocabulary)


def prepare_coco_pt(out: Path, settings: Mapping[str, Any], workers: int = 2) -> Dataset:
    """Write the data folder of a ``coco.pt``: pictures as PNG files, captions, vocabulary.

    ``<unk>`` stands in a reference's tokens, and is left out of its text. A caption without a word
    stops everything, or leaves its picture out (``on_unreadable``). ``vocabulary.json`` has the
    word ids of the file, for systems with ``vocabulary.words: given``.
    """
    files = annotation_files(settings)
    content = read_coco_pt(files["file"])
    images, skipped = _references(content, files["file"], settings["on_unreadable"])
    dataset = Dataset(settings["name"], out, images, skipped)
    for split in settings["evaluate"]:
        if not dataset.split(split):
            raise CapscopeError(f"{files['file']} has no image of split {split!r} to evaluate")
    (out / MANIFEST).unlink(missing_ok=True)
    _write_images(out / IMAGES, content.images, workers)
    write_json(out / DATASET_FILE, karpathy_json(dataset))
    write_json(out / VOCABULARY_FILE, content.vocabulary.to_json())
    write_skipped(out / SKIPPED_FILE, skipped)
    write_manifest(
        out,
        "data",
        params={key: settings[key] for key in ("name", "reader", "coco_pt", "on_unreadable")},
        inputs=files,
        folders=[IMAGES],
        images=dict(Counter(image.split for image in images)),
        references=len(images),
        vocabulary_sha256=content.vocabulary.sha256,
        skipped=len(skipped),
    )
    return dataset


def _references(
    content: CocoPt, path: Path, policy: str
) -> tuple[tuple[Image, ...], tuple[Skipped, ...]]:
    images, skipped = [], []
    unk, words = content.vocabulary.unk, content.vocabulary.words
    for split in SPLITS:
        height, width = content.images[split].shape[2:]
        for row, ids in enumerate(content.captions[split]):
            file = f"{IMAGES}/{_file(split, row)}"
            identifier = row + (VAL_ID if split == "val" else 0)
            tokens = tuple(UNKNOWN if one == unk else words[one] for one in ids)
            text = " ".join(word for word in tokens if word != UNKNOWN) or UNKNOWN
            if tokens:
                image = Image(identifier, file, split, (text,), (tokens,), width, height)
                images.append(image)
            elif policy == "fail":
                raise CapscopeError(
                    f"{path}: {split}_captions[{row}] has no word. Mend the file, or set "
                    "dataset.on_unreadable=skip to leave its picture out"
                )
            else:
                skipped.append(Skipped(identifier, file, "no reference"))
    return tuple(images), tuple(skipped)


def _file(split: str, row: int) -> str:
    return f"{split}/{row:06d}.png"


def _write_images(folder: Path, images: Mapping[str, Tensor], workers: int) -> None:
    def write(place: tuple[str, int]) -> None:
        split, row = place
        pixels = images[split][row].permute(1, 2, 0).contiguous().numpy()
        Pillow.fromarray(pixels).save(folder / _file(split, row), compress_level=1)

    places = [(split, row) for split in SPLITS for row in range(len(images[split]))]
    with writing(folder):
        if folder.exists():
            shutil.rmtree(folder)  # of another file, for all that is known
        for split in SPLITS:
            (folder / split).mkdir(parents=True)
        written: Iterator[None] = map_ahead(write, places, workers)
        for _ in tqdm(written, "writing images", len(places), unit="image"):
            pass


def _images(value: Any, where: str) -> Tensor:
    import torch

    if not isinstance(value, torch.Tensor):
        raise CapscopeError(f"{where}: a {type(value).__name__}, no tensor")
    shape = tuple(value.shape)
    if value.dtype != torch.uint8 or len(shape) != 4 or shape[1] != 3 or not value.numel():
        raise CapscopeError(
            f"{where}: {value.dtype} {shape}; expected torch.uint8 (N, 3, height, width)"
        )
    return value


def _captions(value: Any, vocabulary: Vocabulary, where: str) -> list[list[int]]:
    import torch

    if not isinstance(value, torch.Tensor) or value.dtype != torch.int64 or value.dim() != 2:
        raise CapscopeError(f"{where}: expected torch.int64 (N, words), start and end included")
    outside = ((value < 0) | (value >= len(vocabulary))).nonzero()
    if len(outside):
        row, place = outside[0].tolist()
        raise CapscopeError(
            f"{where}[{row}, {place}] is word {int(value[row, place])}, outside of the "
            f"{len(vocabulary)} words of vocab"
        )
    return [_words(ids, vocabulary, f"{where}[{row}]") for row, ids in enumerate(value.tolist())]


def _words(ids: Sequence[int], vocabulary: Vocabulary, where: str) -> list[int]:
    if not ids or ids[0] != vocabulary.start:
        raise CapscopeError(f"{where} does not begin with {SPECIAL['start']}")
    found = []
    for word_id in ids[1:]:
        if word_id in (vocabulary.end, vocabulary.pad):
            break
        if word_id == vocabulary.start:
            raise CapscopeError(f"{where} has {SPECIAL['start']} twice")
        found.append(word_id)
    return found


def _vocabulary(vocab: Any, path: Path) -> Vocabulary:
    words = vocab.get("idx_to_token") if isinstance(vocab, Mapping) else None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise CapscopeError(f"{path}: vocab needs 'idx_to_token', a list of words")
    ids = {word: number for number, word in enumerate(words)}
    if vocab.get("token_to_idx", ids) != ids:
        raise CapscopeError(f"{path}: vocab: token_to_idx is not the inverse of idx_to_token")
    missing = [word for word in SPECIAL.values() if word not in ids]
    if missing:
        raise CapscopeError(f"{path}: vocab lacks {', '.join(missing)}")
    return Vocabulary(tuple(words), **{name: ids[word] for name, word in SPECIAL.items()})
