"""Where the time of a finished workflow went, by rule, from what Snakemake wrote beside its logs.

    python benchmarks/workflow_profile.py results/scenes

prints a Markdown table: jobs of each rule, their seconds in all and each, and the most memory that
one took. Jobs run side by side, so that the sum is more than the time of the workflow.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd


def profile(results: Path) -> pd.DataFrame:
    """Return a row for each rule; the folder below ``logs`` is its name."""
    tables = []
    for path in sorted((results / "logs").rglob("*.tsv")):
        table = pd.read_csv(path, sep="\t")
        parts = path.relative_to(results / "logs").with_suffix("").parts
        stage = f" {path.stem.split('-')[1]}" if parts[0] == "train" else ""
        tables.append(table.assign(rule=parts[0] + stage))
    if not tables:
        raise SystemExit(f"{results}/logs holds no benchmark of a job: run the workflow first")
    jobs = pd.concat(tables).groupby("rule")
    found = pd.DataFrame(
        {
            "jobs": jobs.size(),
            "seconds": jobs["s"].sum(),
            "a job": jobs["s"].mean(),
            "memory, MB": pd.to_numeric(jobs["max_rss"].max(), errors="coerce"),
        }
    )
    return found.sort_values("seconds", ascending=False)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    found = profile(parser.parse_args().results)
    print("| rule | jobs | seconds | a job | memory, MB |\n|---|---|---|---|---|")
    for row in found.itertuples():
        print(f"| {row.Index} | {row[1]} | {row[2]:.0f} | {row[3]:.1f} | {row[4]:.0f} |")
    print(f"| all | {found['jobs'].sum()} | {found['seconds'].sum():.0f} | | |")


if __name__ == "__main__":
    main()
