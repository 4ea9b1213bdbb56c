"""``capscope compare``: runs image by image, on one page."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import FILE, FOLDER, held, params_options


@click.command()
@click.argument("runs", nargs=-1, type=FOLDER)
@params_options
@click.option("--scores", type=FOLDER, help="From `capscope evaluate`; by default that of the run.")
@click.option("--data", "data_dir", type=FOLDER, help="From `capscope data`; by default the run's.")
@click.option("--references", type=FILE, help="Instead of runs: COCO captions JSON.")
@click.option(
    "--candidates",
    type=FILE,
    multiple=True,
    help="Instead of runs: COCO results JSON; give two or more.",
)
@click.option("--images", "folder", type=FOLDER, help="Of files: where the images are.")
@click.option("--differing", type=click.IntRange(2), help="Images shown; report.images by default.")
@click.option("--out", type=FILE, callback=held, required=True, help="The page, HTML.")
def command(
    runs: tuple[Path, ...],
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    scores: Path | None,
    data_dir: Path | None,
    references: Path | None,
    candidates: tuple[Path, ...],
    folder: Path | None,
    differing: int | None,
    out: Path,
) -> None:
    """Compare two or more runs: paired t-tests, distributions, and where they differ most.

    \b
    Scored runs:   capscope compare results/scenes/runs/gridtd/{xe,scst}/seed1 --out page.html
    All scored:    capscope compare --scores DIR --data DIR --out page.html
    Any files:     capscope compare --references captions.json --candidates a.json \\
                       --candidates b.json --images val2014 --out page.html
    """
    from capscope.params import load_params
    from capscope.report.comparison import write_comparison

    if bool(references) != bool(candidates) or (references is not None and (runs or scores)):
        raise click.UsageError(
            "give runs, or --scores and --data, or --references and --candidates (see --help)"
        )
    if references is not None:
        from capscope.data.image_folder import with_image_files
        from capscope.metrics.pairs import arrange
        from capscope.metrics.submissions import DEFAULTS, evaluate_files
        from capscope.metrics.tables import Tables

        given = params_files[0].exists() or assignments
        params = load_params(params_files, assignments) if given else DEFAULTS
        dataset, rows = evaluate_files([references], candidates, params["metrics"])
        tables = Tables.of(dataset, rows, {"bootstrap": 1, "seed": 1})
        splits = arrange(tables.captions, tables.images, (), references)
        if folder is not None:
            dataset = with_image_files(dataset, folder)
    else:
        from capscope.data.annotations import open_dataset
        from capscope.files import read_json
        from capscope.metrics.pairs import read_scores

        if runs:
            results = runs[0].resolve().parents[3]
            scores, data_dir = scores or results / "scores", data_dir or results / "data"
        if scores is None or data_dir is None:
            raise click.UsageError("without runs, both --scores and --data are needed")
        infos = [read_json(run / "model.json") for run in runs]
        named = [(info["system"], info["stage"], str(info["seed"])) for info in infos]
        splits = read_scores(scores, named)
        params = load_params(params_files, assignments)
        dataset = open_dataset(data_dir, params)
    shown = params.get("report", {}).get("images", 24) if differing is None else differing
    write_comparison(splits, dataset, out, images=shown)
    click.echo(f"page: {out}")
