"""A run folder with an untrained captioner, and the network that made its features, if any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from capscope.data.vocabulary import Vocabulary
from capscope.features.grid import GridExtractor
from capscope.files import digest, write_json, write_manifest
from capscope.models import build
from capscope.tensors import write_tensors


def write_run(
    run: Path, extractor: GridExtractor | None, vocabulary: Vocabulary, attributes: dict[str, Any]
) -> None:
    config = {
        "vocabulary_size": len(vocabulary),
        "feature_size": attributes["dim"] if extractor is None else extractor.dim,
        "embedding": 6,
        "hidden": 8,
        "attention": 5,
    }
    captioner = build("gridtd", **config)
    run.mkdir()
    write_tensors(run / "model.safetensors", captioner.state_dict())
    if extractor is not None:
        extractor.save(run)
    info = {
        "captioner": "gridtd",
        "config": config,
        "vocabulary": vocabulary.to_json(),
        "vocabulary_sha256": digest(vocabulary.to_json()),
        "features": attributes,
        "decoding": {"method": "greedy", "beam": 1, "max_length": 6},
    }
    write_json(run / "model.json", info)
    write_manifest(run, "run", params={})
