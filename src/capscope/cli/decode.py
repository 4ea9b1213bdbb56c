"""``capscope decode``: caption a split."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import FILE, FOLDER, params_options


@click.command()
@params_options
@click.option("--run", "run_dir", type=FOLDER, required=True, help="From `capscope train`.")
@click.option("--data", "data_dir", type=FOLDER, required=True, help="From `capscope data`.")
@click.option(
    "--features", "features_dir", type=FOLDER, required=True, help="From `capscope features`."
)
@click.option("--split", default="test", show_default=True, help="train, val, test, shift.")
@click.option("--out", type=FILE, required=True, help="COCO results JSON.")
def command(
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    run_dir: Path,
    data_dir: Path,
    features_dir: Path,
    split: str,
    out: Path,
) -> None:
    """Caption a split with a trained run."""
    from capscope.decoding.captions import decode_run
    from capscope.params import load_params

    params = load_params(params_files, assignments)
    decode_run(run_dir, data_dir, features_dir, params, split=split, out=out)
