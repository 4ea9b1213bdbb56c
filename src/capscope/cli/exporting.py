"""``capscope export``: runs become checkpoints of the original programs."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import FILE, FOLDER


@click.group()
def command() -> None:
    """Write runs as checkpoints that the original authors' programs load."""


@command.command("lrp_ic")
@click.option("--run", "run_dir", type=FOLDER, required=True, help="A trained or imported run.")
@click.option("--checkpoint", type=FILE, required=True, help="PyTorch file to write.")
@click.option("--wordmap", type=FILE, required=True, help="JSON with the id of each word to write.")
def lrp_ic(run_dir: Path, checkpoint: Path, wordmap: Path) -> None:
    """Export a run for LRP image captioning (Sun and others, 2022)."""
    from capscope.importers.lrp_ic_runs import export_run

    export_run(run_dir, checkpoint, wordmap)
