"""``capscope features``: extract visual features into a feature store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from capscope.cli.options import FOLDER, hold, only_one, params_options, shard_options

if TYPE_CHECKING:
    from capscope.shards import Shard


@click.command()
@params_options
@click.option(
    "--kind",
    type=click.Choice(["grid", "regions"]),
    default="grid",
    show_default=True,
    help="What is taken from an image: the cells of a convolutional network, or the regions that "
    "a detector finds.",
)
@click.option("--data", "data_dir", type=FOLDER, required=True, help="From `capscope data`.")
@click.option("--backbone", type=FOLDER, help="From `capscope backbone`, for weights: trained.")
@click.option("--detector", type=FOLDER, help="From `capscope detector`, for weights: trained.")
@click.option(
    "--import",
    "sources",
    type=(str, click.Path(path_type=Path)),
    multiple=True,
    metavar="FORMAT PATH",
    help="Instead of extracting: take features from files of others. Formats: tsv, regions_hdf5, "
    "regions_npz, grid_hdf5, grid_npz, store (one of ours); and besides segments_hdf5, "
    "segments_npy, segments_panoptic, segments_instances (boxes or polygons), segments_masks "
    "(scenes) or segments_torchvision.",
)
@click.option(
    "--run",
    "run_dir",
    type=FOLDER,
    help="A run whose training fine-tuned the network of the grid: take features with that.",
)
@click.option("--parity", is_flag=True, help="Import as published: fill up or cut to 7 x 7 cells.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the feature store.")
@shard_options
def command(
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    kind: str,
    data_dir: Path,
    backbone: Path | None,
    detector: Path | None,
    sources: tuple[tuple[str, Path], ...],
    run_dir: Path | None,
    parity: bool,
    out: Path,
    shard: Shard | None,
    gather: int,
) -> None:
    """Extract visual features into a feature store, or import those of others."""
    from capscope.params import load_params

    params = load_params(params_files, assignments)
    only_one(**{"import": sources, "shard": shard, "gather": gather})
    from capscope.features.shards import shard_folder

    hold(shard_folder(out, shard) if shard else out)
    if sources:
        from capscope.features.importing.write import import_features

        import_features(sources, data_dir, params, out, parity=parity)
        return

    if gather:
        from capscope.features.job import gather_features

        grid = {"backbone": backbone, "run": run_dir}
        trained = grid if kind == "grid" else {"detector": detector}
        gather_features(out, data_dir, params, kind, trained, gather)
    elif kind == "grid":
        from capscope.features.extract import prepare_features

        prepare_features(out, data_dir, params, backbone, shard, run_dir)
    else:
        from capscope.features.extract_regions import prepare_regions

        prepare_regions(out, data_dir, params, detector, shard)
