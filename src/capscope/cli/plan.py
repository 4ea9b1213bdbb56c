"""``capscope plan``: estimate time, memory and disk of a workflow."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import FILE, params_options


@click.command()
@params_options
@click.option("--device", default="cpu", show_default=True, help="That rates were measured on.")
@click.option("--rates", type=FILE, help="Rates as benchmarks/rates.py prints them.")
@click.option(
    "--images",
    "counts",
    multiple=True,
    metavar="SPLIT=N",
    help="Images of a split, where the data set is not one of Karpathy's.",
)
@click.option(
    "--set-scatter",
    "scattered",
    multiple=True,
    metavar="STEP=N",
    help="Jobs that a step is divided into, as in Snakemake: extract, decode, relevance.",
)
def command(
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    device: str,
    rates: Path | None,
    counts: tuple[str, ...],
    scattered: tuple[str, ...],
) -> None:
    """Estimate time, memory and disk of a workflow from measured rates."""
    from capscope.params import load_params
    from capscope.planning import IMAGES, as_text, plan, read_rates

    params = load_params(params_files, assignments)
    reader = params["dataset"]["reader"]
    images = dict(IMAGES.get(reader, {}))
    if reader == "scenes":
        scenes = params["dataset"]["scenes"]
        images = {split: scenes[split] for split in ("train", "val", "test", "shift")}
    images |= _numbers("--images", "SPLIT=N, such as train=5000", counts)
    scatter = _numbers("--set-scatter", "STEP=N, such as decode=8", scattered)
    steps = plan(params, read_rates(rates), device, images, scatter)
    click.echo(as_text(steps, device, params["training"]["processes"]), nl=False)


def _numbers(option: str, expected: str, texts: tuple[str, ...]) -> dict[str, int]:
    """Read texts such as train=5000."""
    found = {}
    for text in texts:
        name, _, number = text.partition("=")
        if not number.isdecimal():
            raise click.UsageError(f"{option} {text}: expected {expected}")
        found[name] = int(number)
    return found
