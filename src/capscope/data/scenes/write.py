"""Drawing the whole data set to disk: pictures, masks, references, boxes and recipes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from capscope.data.scenes.grammar import write_references
from capscope.data.scenes.lexicon import CLASSES
from capscope.data.scenes.recipe import Recipe, sample_recipe
from capscope.data.scenes.render import paint
from capscope.errors import CapscopeError
from capscope.files import MANIFEST, read_json, write_json, write_manifest, writing
from capscope.lifeline import end_with_parent

SPLITS = ("train", "val", "test", "shift")
FOLDERS = ("images", "masks")
PICTURES = "[0-9][0-9][0-9][0-9][0-9][0-9].png"
BATCH = 50
SMALLEST = 0.0045
"""Visible area of the smallest object, relative to the image; smaller ones are drawn anew."""
LEAST_VISIBLE = 0.4
"""Smallest visible share of an object's box that an occluded object may keep."""

Job = tuple[int, str, int, Mapping[str, Any], Path]
Row = dict[str, Any]


def write_scenes(out: Path, settings: Mapping[str, Any], workers: int = 1) -> Path:
    """Draw the data set into `out`; the same settings give the same bytes for any `workers`.

    Parameters
    ----------
    out : Path
        Gets ``dataset.json`` (Karpathy layout), ``instances.json`` (COCO), ``scenes.json``
        (recipes by image id), ``images/<split>/<id>.png``, ``masks/<split>/<id>.png`` (1 + index
        of the object in the recipe, 0 for background) and ``manifest.json``.
    settings : mapping
        ``params.dataset.scenes``: seed, size, images of each split, bias.
    workers : int
        Processes that draw.

    Returns
    -------
    Path
        The manifest.
    """
    jobs: list[Job] = []
    for split in SPLITS:
        for index in range(settings[split]):
            jobs.append((len(jobs) + 1, split, index, settings, out))
    with writing(out):
        (out / MANIFEST).unlink(missing_ok=True)
        for folder in (out / kind / split for kind in FOLDERS for split in SPLITS):
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob(PICTURES):  # of other settings
                old.unlink()
        rows = list(tqdm(_draw_all(jobs, workers), total=len(jobs), unit="image", desc="scenes"))
    write_json(out / "dataset.json", _karpathy(rows), indent=None)
    write_json(out / "instances.json", _instances(rows, settings["size"]), indent=None)
    write_json(out / "scenes.json", {str(row["id"]): row["recipe"] for row in rows}, indent=None)
    counts = {split: settings[split] for split in SPLITS}
    return write_manifest(out, "data", params=dict(settings), folders=FOLDERS, images=counts)


def read_recipes(data_dir: Path) -> dict[int, Recipe]:
    """Return the recipe of every image id of a data set that `write_scenes` drew."""
    path = data_dir / "scenes.json"
    if not path.exists():
        raise CapscopeError(f"{path} does not exist: {data_dir} holds no drawn scenes")
    return {int(key): Recipe.from_json(value) for key, value in read_json(path).items()}


def _draw_all(jobs: list[Job], workers: int) -> Iterator[Row]:
    batches = [jobs[start : start + BATCH] for start in range(0, len(jobs), BATCH)]
    if workers <= 1:
        yield from chain.from_iterable(map(_draw_batch, batches))
        return
    with ProcessPoolExecutor(
        workers,
        mp_context=get_context("spawn"),
        initializer=end_with_parent,
        initargs=(os.getpid(),),
    ) as pool:
        yield from chain.from_iterable(pool.map(_draw_batch, batches))


def _draw_batch(jobs: list[Job]) -> list[Row]:
    return [_draw(*job) for job in jobs]


def _draw(image_id: int, split: str, index: int, settings: Mapping[str, Any], out: Path) -> Row:
    """Draw and save one image; its random numbers depend on seed, split and index only."""
    rng = np.random.default_rng([settings["seed"], SPLITS.index(split), index])
    bias = 0.0 if split == "shift" else settings["bias"]
    recipe, picture, mask = _draw_visible(rng, settings["size"], bias)
    name = f"{image_id:06d}.png"
    Image.fromarray(picture).save(out / "images" / split / name, compress_level=1)
    Image.fromarray(mask).save(out / "masks" / split / name, compress_level=1)
    boxes = [_box(mask == k + 1) for k in range(len(recipe.objects))]
    areas = [int((mask == k + 1).sum()) for k in range(len(recipe.objects))]
    return {
        "id": image_id,
        "split": split,
        "name": name,
        "recipe": recipe.to_json(),
        "references": write_references(recipe, areas, rng),
        "boxes": boxes,
        "areas": areas,
        "runs": [_run_lengths(mask == k + 1) for k in range(len(recipe.objects))],
    }


def _draw_visible(
    rng: np.random.Generator, size: int, bias: float
) -> tuple[Recipe, np.ndarray[Any, np.dtype[np.uint8]], np.ndarray[Any, np.dtype[np.uint8]]]:
    """Draw scenes until every object is visible enough to be named."""
    while True:
        recipe = sample_recipe(rng, size, bias)
        picture, mask = paint(recipe)
        areas = np.bincount(mask.ravel(), minlength=len(recipe.objects) + 1)[1:]
        full = np.array([thing.width * thing.height for thing in recipe.objects]) * 0.6
        if (areas >= SMALLEST * size**2).all() and (areas >= LEAST_VISIBLE * full).all():
            return recipe, picture, mask


def _box(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> list[int]:
    """Return x, y, width, height of the visible part."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]


def _run_lengths(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> list[int]:
    """Return uncompressed COCO run lengths: column by column, background first."""
    flat = np.concatenate([[False], mask.T.ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return [int(length) for length in np.diff([0, *edges, mask.size])]


def _karpathy(rows: list[Row]) -> dict[str, Any]:
    images, sentence_id = [], 0
    for row in rows:
        sentences = []
        for text in row["references"]:
            raw = f"{text[0].upper()}{text[1:]}."
            sentences.append(
                {"raw": raw, "tokens": text.split(), "imgid": row["id"], "sentid": sentence_id}
            )
            sentence_id += 1
        images.append(
            {
                "filename": row["name"],
                "filepath": f"images/{row['split']}",
                "cocoid": row["id"],
                "imgid": row["id"],
                "split": row["split"],
                "sentids": [sentence["sentid"] for sentence in sentences],
                "sentences": sentences,
                "width": row["recipe"]["size"],
                "height": row["recipe"]["size"],
            }
        )
    return {"dataset": "scenes", "images": images}


def _instances(rows: list[Row], size: int) -> dict[str, Any]:
    numbers = {name: number for number, name in enumerate(CLASSES, 1)}
    annotations: list[Row] = []
    for row in rows:
        for index, thing in enumerate(row["recipe"]["objects"]):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": row["id"],
                    "category_id": numbers[thing["name"]],
                    "bbox": row["boxes"][index],
                    "area": row["areas"][index],
                    "segmentation": {"size": [size, size], "counts": row["runs"][index]},
                    "iscrowd": 0,
                    "scene_object": index,
                }
            )
    return {
        "info": {"description": "scenes drawn by capscope", "version": "1"},
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
        "images": [
            {"id": row["id"], "file_name": row["name"], "width": size, "height": size}
            for row in rows
        ],
        "annotations": annotations,
    }
