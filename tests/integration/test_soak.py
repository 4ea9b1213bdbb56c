"""A hundred thousand images through training, decoding and evaluation: memory stays flat."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from project import ROOT
from reliability import SOAK, write

from capscope.data.annotations import Dataset, Image, karpathy_json
from capscope.data.captions import prepare_captions
from capscope.features.store import create_store
from capscope.files import read_json, write_json, write_manifest
from capscope.params import load_params, merge

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]
IMAGES = int(os.environ.get("CAPSCOPE_SOAK_IMAGES", "100000"))
CELLS, DIM = 4, 16
COLOURS, ANIMALS = ("red", "blue", "green"), ("cat", "dog", "fish", "bird", "horse")
ALLOWED = {"train": 1.0, "decode": 1.5, "evaluate": 2.5}
"""Memory that each further image of the data set may take, in kB: features take none."""


def prepare(folder, images):
    """Write data, vocabulary and features of many small images."""
    system = {
        "model": {"embedding": 12, "hidden": 16, "attention": 10},
        "vocabulary": {"min_count": 1},
        "xe": {"epochs": 1, "batch_size": 128, "validation_images": 50, "checkpoint_seconds": 2},
    }
    overlay = {
        "dataset": {"name": "soak", "evaluate": ["test"]},
        "systems": {"gridtd": system},
        "decoding": {"beam": 2, "max_length": 8, "batch_size": 64},
        "metrics": {"meteor": False, "tokenizer": "python", "cache": None},
        "benchmarks": {"bootstrap": 20},
    }
    params = merge(load_params([ROOT / "params.yaml"]), overlay)
    write_json(folder / "params.json", params)
    generator, entries = random.Random(0), []
    for number in range(images):
        words = ("a", generator.choice(COLOURS), generator.choice(ANIMALS))
        split = "val" if number < 100 else ("train", "train", "test")[number % 3]
        raw, tokens = (" ".join(words),), (words,)
        entries.append(Image(number + 1, f"{number}.png", split, raw, tokens, 8, 8))
    write_json(
        folder / "data" / "dataset.json",
        karpathy_json(Dataset("soak", folder / "data", tuple(entries))),
    )
    write_manifest(folder / "data", "data", params={})
    prepare_captions(folder / "vocabulary", folder / "data", params, "gridtd")
    store = folder / "features"
    store.mkdir()
    ids = [entry.id for entry in entries]
    attributes = {"network": "toy", "grid": [2, 2]}
    with create_store(
        store, ids, cells=CELLS, dim=DIM, dtype="float16", attributes=attributes
    ) as writer:
        for first in range(0, images, 4096):
            rows = entries[first : first + 4096]
            cells = torch.zeros(len(rows), CELLS, DIM)
            for row, entry in enumerate(rows):
                _, colour, animal = entry.tokens[0]
                cells[row, row % CELLS, COLOURS.index(colour)] = 1
                cells[row, row % CELLS, len(COLOURS) + ANIMALS.index(animal)] = 1
            writer.append(cells)
    write_manifest(store, "features", params={})


def peak(folder, *arguments):
    """Run a command of capscope; return its largest private memory in kB, and its seconds."""
    command = [str(Path(sys.executable).with_name("capscope")), *map(str, arguments)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--params", str(folder / "params.json")], stdout=log, stderr=log
        )
        largest, begun = 0, time.monotonic()
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            found = [int(line.split()[1]) for line in status if line.startswith("RssAnon")]
            largest = max(largest, *found) if found else largest
            time.sleep(0.02)
    assert process.returncode == 0, (folder / "log").read_text()
    return largest, round(time.monotonic() - begun)


def peaks(folder):
    """Train, caption and score; return the largest memory and the seconds of each."""
    run, data = folder / "run", ["--data", folder / "data"]
    features = ["--features", folder / "features"]
    vocabulary = ["--vocabulary", folder / "vocabulary"]
    decoded = run / "decoded" / "test.json"
    of_run = ["--run", run, *data]
    found = {
        "train": peak(
            folder, "train", "--system", "gridtd", *data, *features, *vocabulary, "--out", run
        ),
        "decode": peak(folder, "decode", *of_run, *features, "--out", decoded),
        "evaluate": peak(folder, "evaluate", *of_run, "--out", folder / "scores"),
    }
    images = read_json(folder / "data" / "dataset.json")["images"]
    assert len(read_json(decoded)) == sum(image["split"] == "test" for image in images)
    return found


def test_many_images_train_caption_and_score_in_flat_memory(tmp_path):
    found = {}
    for images in (IMAGES // 10, IMAGES):
        folder = tmp_path / str(images)
        prepare(folder, images)
        found[images] = peaks(folder)
    few, many = found.values()
    each = {step: (many[step][0] - few[step][0]) / (0.9 * IMAGES) for step in ALLOWED}
    if IMAGES == 100_000:
        lines = [
            {"images": images, "step": step, "memory_mb": size // 1000, "seconds": seconds}
            for images, of_steps in found.items()
            for step, (size, seconds) in of_steps.items()
        ]
        write(SOAK, lines)
    assert all(each[step] < ALLOWED[step] for step in ALLOWED), each
