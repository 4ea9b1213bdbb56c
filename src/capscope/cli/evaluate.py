"""``capscope evaluate``: score generated captions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from capscope.cli.options import FILE, FOLDER, held, params_options


@click.command()
@params_options
@click.option("--data", "data_dir", type=FOLDER, help="From `capscope data`.")
@click.option(
    "--run",
    "run_dirs",
    type=FOLDER,
    multiple=True,
    help="A run with decoded captions; give all runs to be compared.",
)
@click.option(
    "--references",
    type=FILE,
    multiple=True,
    help="Instead of --data: COCO captions JSON, or with --plain text files.",
)
@click.option(
    "--candidates",
    type=FILE,
    multiple=True,
    help="Instead of --run: COCO results JSON; give all files to be compared.",
)
@click.option(
    "--plain",
    is_flag=True,
    help="Files are plain text: a caption a line; references as several files, or with tabs.",
)
@click.option(
    "--only-captioned",
    is_flag=True,
    help="Score against the references of those images that have captions.",
)
@click.option("--human", is_flag=True, help="Score each reference against the others, too.")
@click.option(
    "--out", type=FOLDER, callback=held, help="Gets captions.csv, per_image.csv and more."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="What is printed.",
)
@click.option("--backend", type=click.Choice(["fast", "reference"]), help="As in params.yaml.")
@click.option("--tokenizer", type=click.Choice(["java", "python"]), help="As in params.yaml.")
@click.option(
    "--frequencies",
    help="Document frequencies of CIDEr: references, train, an n-gram file or captions to count.",
)
@click.option("--parity/--no-parity", default=None, help="As in params.yaml.")
@click.option("--meteor/--no-meteor", default=None, help="As in params.yaml.")
@click.pass_context
def command(
    context: click.Context,
    /,
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    data_dir: Path | None,
    run_dirs: tuple[Path, ...],
    references: tuple[Path, ...],
    candidates: tuple[Path, ...],
    plain: bool,
    only_captioned: bool,
    human: bool,
    out: Path | None,
    form: str,
    **flags: Any,
) -> None:
    """Score generated captions against the references.

    \b
    Of runs:       capscope evaluate --data DIR --run DIR --run DIR --out DIR
    Of any files:  capscope evaluate --references captions.json --candidates results.json
    Of plain text: capscope evaluate --plain --references tabs.txt --candidates lines.txt

    Without a params.yaml, files are scored with the default settings.
    """
    from capscope.metrics.runs import evaluate_runs, seal_scores
    from capscope.metrics.submissions import DEFAULTS, evaluate_files
    from capscope.metrics.tables import Tables
    from capscope.params import load_params

    of_runs = data_dir is not None and bool(run_dirs) and out is not None
    of_files = bool(references) and bool(candidates)
    if of_runs == of_files or (of_runs and (plain or only_captioned)):
        raise click.UsageError(
            "give --data, --run and --out, or --references and --candidates (see --help)"
        )
    given = context.get_parameter_source("params_files") != ParameterSource.DEFAULT
    if of_files and not given and not assignments and not params_files[0].exists():
        params: Mapping[str, Any] = DEFAULTS
    else:
        params = load_params(params_files, assignments)
    metrics = {**params["metrics"], **{k: v for k, v in flags.items() if v is not None}}
    if of_runs:
        assert data_dir is not None
        dataset, rows = evaluate_runs(data_dir, run_dirs, {**params, "metrics": metrics})
    else:
        dataset, rows = evaluate_files(
            references,
            candidates,
            metrics,
            plain=plain,
            only_captioned=only_captioned,
            human=human,
        )
    tables = Tables.of(dataset, rows, params["benchmarks"])
    if out is not None:
        tables.write(out)
        if data_dir is not None:
            seal_scores(out, data_dir, run_dirs, {**params, "metrics": metrics})
    click.echo(_text(rows, tables, form), nl=form != "csv")


def _text(rows: Sequence[Any], tables: Any, form: str) -> str:
    from capscope.metrics.summary import summary
    from capscope.metrics.tables import as_csv

    if form == "csv":
        return as_csv(tables.captions)
    if form == "json":
        return json.dumps(tables.to_json(), indent=1, allow_nan=False)
    return summary(rows, tables)
