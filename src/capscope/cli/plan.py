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
def command(
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    device: str,
    rates: Path | None,
    counts: tuple[str, ...],
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
    for count in counts:
        split, _, number = count.partition("=")
        if not number.isdecimal():
            raise click.UsageError(f"--images {count}: expected SPLIT=N, such as train=5000")
        images[split] = int(number)
    steps = plan(params, read_rates(rates), device, images)
    click.echo(as_text(steps, device, params["training"]["processes"]), nl=False)
