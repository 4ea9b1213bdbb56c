"""The report of two captioners on two images; the second says the words the other way round."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from toy_results import HOSTILE, write_results

from capscope.data.annotations import open_dataset
from capscope.files import read_json, write_json, write_manifest
from capscope.metrics.pairs import ScoredRun, SplitScores
from capscope.report.comparison import write_comparison
from capscope.report.site import write_report

RUNS = ("gridtd_xe_seed1", "base_xe_seed1")
DATASET = {"name": "toy", "reader": "scenes", "scenes": {}}


def write_site(tmp_path: Path) -> Path:
    """Return the folder of the site."""
    folder, published = write_results(tmp_path)
    other = folder / "runs" / "base" / "xe" / "seed1"
    shutil.copytree(folder / "runs" / "gridtd" / "xe" / "seed1", other)
    info = read_json(other / "model.json") | {"system": "base"}
    info["vocabulary"]["words"][1:4] = [HOSTILE, "cat", "a"]
    write_json(other / "model.json", info)
    write_manifest(other, "run", params={"x": 2})
    for name in ("captions", "per_image"):
        path = folder / "scores" / f"{name}.csv"
        lines = path.read_text().splitlines()
        more = [line.replace("gridtd", "base") for line in lines if "gridtd" in line]
        path.write_text("\n".join([*lines, *more]) + "\n")
    params = {"dataset": DATASET, "report": {"images": 2}}
    runs = [
        ScoredRun(f"{name} xe", (f"a {HOSTILE}",) * 2, {"CIDEr": k}, {"CIDEr": np.array([k, 0.5])})
        for name, k in (("gridtd", 2.5), ("base", 2.0))
    ]
    scores = SplitScores("test", (1, 2), tuple(runs), {"CIDEr": 3.0})
    dataset = open_dataset(folder / "data", params)
    write_comparison([scores], dataset, folder / "scores" / "comparison.html")
    write_report(folder, published, params, tmp_path / "report")
    return tmp_path / "report"
