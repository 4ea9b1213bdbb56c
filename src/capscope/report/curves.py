"""How training went, all runs in one table."""

from __future__ import annotations

import pandas as pd

from capscope.report.results import Results


def validation_curves(results: Results) -> pd.DataFrame:
    """Return the validation CIDEr of every run by epoch and step: what `dvc plots` draws.

    Columns: dataset, system, stage, seed, run, epoch, step, CIDEr.
    """
    frames = []
    for run in results.runs:
        path = run.folder / "metrics.csv"
        if path.exists():
            log = pd.read_csv(path)
            rows = log[(log["split"] == "val") & (log["metric"] == "cider")]
            named = rows.assign(system=run.system, stage=run.stage, seed=run.seed, run=run.title)
            frames.append(named.assign(dataset=results.dataset, CIDEr=rows["value"]))
    columns = ["dataset", "system", "stage", "seed", "run", "epoch", "step", "CIDEr"]
    return pd.concat(frames)[columns] if frames else pd.DataFrame(columns=columns)
