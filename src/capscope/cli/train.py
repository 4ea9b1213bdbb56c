"""``capscope train``: train a captioner."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import FOLDER, params_options


@click.command()
@params_options
@click.option("--system", required=True, help="Name of the system in the parameters.")
@click.option("--stage", default="xe", show_default=True, help="xe, scst, lrp_xe, lrp_scst.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of weights and order.")
@click.option("--data", "data_dir", type=FOLDER, required=True, help="From `capscope data`.")
@click.option(
    "--vocabulary", "vocabulary_dir", type=FOLDER, required=True, help="From `capscope vocabulary`."
)
@click.option(
    "--features", "features_dir", type=FOLDER, required=True, help="From `capscope features`."
)
@click.option(
    "--from",
    "from_dir",
    type=FOLDER,
    help="Run whose weights the stage starts from; the stages scst, lrp_xe, lrp_scst need one.",
)
@click.option("--out", type=FOLDER, required=True, help="Folder of the run.")
def command(
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    system: str,
    stage: str,
    seed: int,
    data_dir: Path,
    vocabulary_dir: Path,
    features_dir: Path,
    from_dir: Path | None,
    out: Path,
) -> None:
    """Train a captioner; resumes by itself after an interruption."""
    from capscope.params import load_params
    from capscope.training.run import train_run
    from capscope.training.team import joined

    params = load_params(params_files, assignments)
    with joined() as team:
        trained = train_run(
            out,
            data_dir,
            vocabulary_dir,
            features_dir,
            params,
            system=system,
            stage=stage,
            seed=seed,
            from_dir=from_dir,
            team=team,
        )
    if not trained and team.leads:
        click.echo(f"{out} already holds this run; delete it to train again", err=True)
