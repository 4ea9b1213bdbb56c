"""What explaining a word cost, from the logs: no result, since it differs from run to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from capscope.files import read_json, write_text
from capscope.report.results import Results

FILE = "run_time.csv"


def run_times(results: Results) -> pd.DataFrame:
    """Return words, seconds and CPU time per word of each run, split and explainer.

    Nothing where no run has been timed (results from elsewhere).
    """
    lines: list[dict[str, Any]] = []
    for run in results.runs:
        name = f"{run.system}-{run.stage}-seed{run.seed}"
        for path in sorted((results.folder / "logs" / "relevance").glob(f"{name}-*.json")):
            split = path.stem.removeprefix(f"{name}-")
            for explainer, times in read_json(path).items():
                key = {"system": run.system, "stage": run.stage, "seed": run.seed, "split": split}
                lines.append(key | {"explainer": explainer} | times)
    return pd.DataFrame(lines)


def write_run_times(times: pd.DataFrame, folder: Path) -> Path | None:
    """Write ``run_time.csv`` and return it, or None where no run has been timed."""
    if times.empty:
        return None
    write_text(folder / FILE, times.to_csv(index=False))
    return folder / FILE
