"""``capscope features``: extract visual features into a feature store."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import FOLDER, params_options


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
    "segments_npy, segments_panoptic, segments_masks (scenes) or segments_torchvision.",
)
@click.option("--parity", is_flag=True, help="Import as published: fill up or cut to 7 x 7 cells.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the feature store.")
def command(
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    kind: str,
    data_dir: Path,
    backbone: Path | None,
    detector: Path | None,
    sources: tuple[tuple[str, Path], ...],
    parity: bool,
    out: Path,
) -> None:
    """Extract visual features into a feature store, or import those of others."""
    from capscope.features.extract import prepare_features
    from capscope.features.extract_regions import prepare_regions
    from capscope.params import load_params

    params = load_params(params_files, assignments)
    if sources:
        from capscope.features.importing.write import import_features

        import_features(sources, data_dir, params, out, parity=parity)
    elif kind == "grid":
        prepare_features(out, data_dir, params, backbone)
    else:
        prepare_regions(out, data_dir, params, detector)
