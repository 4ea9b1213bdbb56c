"""``capscope benchmark``: measure how good explanations are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from capscope.benchmarks import BENCHMARKS
from capscope.cli.options import (
    FOLDER,
    hold,
    only_one,
    params_options,
    run_data_options,
    shard_options,
)

if TYPE_CHECKING:
    from capscope.shards import Shard

QUESTIONS = "\n".join(f"{name:<15} {one.question}" for name, one in BENCHMARKS.items())


class BenchmarkName(click.Choice[str]):
    """A benchmark; ``-`` and ``_`` are the same, because tables are called ground_truth.csv."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name with ``_``."""
        return super().convert(value.replace("-", "_"), param, ctx)


@click.command(
    help=f"Measure how good the explanations of a run are.\n\n\b\n{QUESTIONS}",
    short_help="Measure how good the explanations of a run are.",
)
@click.argument(
    "names", type=BenchmarkName(list(BENCHMARKS)), metavar="NAME...", nargs=-1, required=True
)
@params_options
@run_data_options
@click.option("--out", type=FOLDER, help="Gets NAME.csv.  [default: RUN/benchmarks]")
@shard_options
def command(
    names: tuple[str, ...],
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    run_dir: Path,
    data_dir: Path,
    features_dir: Path,
    out: Path | None,
    shard: Shard | None,
    gather: int,
) -> None:
    """Measure how good the explanations of a run are."""
    from capscope.benchmarks.run import SHARDS_FOLDER, run_benchmarks
    from capscope.models.checkpoint import name_of
    from capscope.params import load_params

    params = load_params(params_files, assignments, run=name_of(run_dir))
    out = out or run_dir / "benchmarks"
    only_one(shard=shard, gather=gather)
    if shard is None:
        for name in sorted(set(names)):
            hold(out / f"{name}.csv")
    else:
        hold(out / SHARDS_FOLDER / str(shard))
    run_benchmarks(names, run_dir, data_dir, features_dir, out, params, shard, gather)
