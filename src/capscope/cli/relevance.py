"""``capscope relevance``: explain the captions of a split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from capscope.cli.options import (
    FILE,
    FOLDER,
    hold,
    only_one,
    params_options,
    run_data_options,
    shard_options,
)

if TYPE_CHECKING:
    from capscope.shards import Shard


@click.command()
@params_options
@run_data_options
@click.option("--split", required=True, help="Split whose captions are explained.")
@click.option(
    "--explainer",
    "explainers",
    multiple=True,
    help="Method: lrp, attention, gradcam, ...; repeatable.  [default: those of the parameters]",
)
@click.option(
    "--captions", type=FILE, help="Generated captions.  [default: RUN/decoded/SPLIT.json]"
)
@click.option(
    "--out", type=FOLDER, help="Gets EXPLAINER/SPLIT/relevance.h5.  [default: RUN/relevance]"
)
@click.option("--timing", type=FILE, help="Gets the time that each explainer took, as JSON.")
@shard_options
def command(
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    run_dir: Path,
    data_dir: Path,
    features_dir: Path,
    split: str,
    explainers: tuple[str, ...],
    captions: Path | None,
    out: Path | None,
    timing: Path | None,
    shard: Shard | None,
    gather: int,
) -> None:
    """Explain the captions of a split and store the relevance."""
    from capscope.explain.split import explain_split
    from capscope.explain.store import INDEX
    from capscope.models.checkpoint import name_of
    from capscope.params import load_params

    params = load_params(params_files, assignments, run=name_of(run_dir))
    settings = params["explanations"]
    out = out or run_dir / "relevance"
    only_one(shard=shard, gather=gather)
    index = out / INDEX.format(split)
    hold(index if shard is None else index.with_suffix(".shards") / str(shard))
    explain_split(
        run_dir,
        data_dir,
        features_dir,
        out,
        params,
        split=split,
        explainers=explainers or [*settings["explainers"], *settings["controls"]],
        decoded=captions,
        timing=timing,
        shard=shard,
        gather=gather,
    )
