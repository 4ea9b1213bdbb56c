"""``capscope decode``: caption a split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from capscope.cli.options import FILE, FOLDER, hold, only_one, params_options, shard_options

if TYPE_CHECKING:
    from capscope.shards import Shard


@click.command()
@params_options
@click.option(
    "--run",
    "run_dirs",
    type=FOLDER,
    required=True,
    multiple=True,
    help="From `capscope train`; given several times, an ensemble of the runs captions.",
)
@click.option(
    "--weight",
    "weights",
    type=float,
    multiple=True,
    help="Weight of each run in the ensemble, in the order of --run; equal by default.",
)
@click.option("--data", "data_dir", type=FOLDER, required=True, help="From `capscope data`.")
@click.option(
    "--features", "features_dir", type=FOLDER, required=True, help="From `capscope features`."
)
@click.option("--split", default="test", show_default=True, help="train, val, test, shift.")
@click.option("--out", type=FILE, required=True, help="COCO results JSON.")
@shard_options
def command(
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    run_dirs: tuple[Path, ...],
    weights: tuple[float, ...],
    data_dir: Path,
    features_dir: Path,
    split: str,
    out: Path,
    shard: Shard | None,
    gather: int,
) -> None:
    """Caption a split with a trained run, or with several runs as one.

    An ensemble takes the mean of its members' probabilities at every word; they need the same
    vocabulary and the same visual features.
    """
    from capscope.decoding.captions import decode_run
    from capscope.params import load_params

    params = load_params(params_files, assignments)
    only_one(shard=shard, gather=gather)
    hold(out if shard is None else out.with_suffix(".shards") / str(shard))
    run_dir, *also = run_dirs
    decode_run(
        run_dir,
        data_dir,
        features_dir,
        params,
        split=split,
        out=out,
        also=also,
        weights=weights or None,
        shard=shard,
        gather=gather,
    )
