"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


def hold(product: Path) -> None:
    """Be the only writer of a folder or file until the command ends; see `one_writer`."""
    from capscope.files import writing
    from capscope.lock import one_writer

    with writing(product):
        click.get_current_context().with_resource(one_writer(product))


def held(_: click.Context, __: click.Parameter, value: Path | None) -> Path | None:
    """Hold what an option names: its callback."""
    if value is not None:
        hold(value)
    return value


def params_options(function: Function) -> Function:
    """Add ``--params FILE`` (repeatable) and ``--set KEY=VALUE`` (repeatable)."""
    function = click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="KEY=VALUE",
        help="Change one parameter, such as --set decoding.beam=5.",
    )(function)
    return click.option(
        "--params",
        "params_files",
        multiple=True,
        type=FILE,
        default=[Path("params.yaml")],
        show_default="params.yaml",
        help="Parameter file; later ones are laid over earlier ones.",
    )(function)


def run_data_options(function: Function) -> Function:
    """Add ``--run``, ``--data`` and ``--features``: a run, and what it is looked at with."""
    for name, key, meaning in (
        ("--features", "features_dir", "Features of the run."),
        ("--data", "data_dir", "From `capscope data`."),
        ("--run", "run_dir", "From `capscope train`."),
    ):
        function = click.option(name, key, type=FOLDER, required=True, help=meaning)(function)
    return function


def shard_options(function: Function) -> Function:
    """Add ``--shard I/N`` and ``--gather N``, which deal the work out to N jobs and join it."""
    function = click.option(
        "--gather",
        type=click.IntRange(0),
        default=0,
        metavar="N",
        help="Join what N jobs with --shard have made.",
    )(function)
    return click.option(
        "--shard",
        callback=_shard,
        metavar="I/N",
        help="Do one share of N of the work, in a folder of its own, for --gather N.",
    )(function)


def _shard(_: click.Context, __: click.Parameter, value: str | None) -> Any:
    """Read such as 2/8 or 2-of-8."""
    from capscope.shards import Shard

    return None if value is None else Shard.parse(value)


def only_one(**chosen: object) -> None:
    """Check that no more than one of several options is given."""
    if sum(map(bool, chosen.values())) > 1:
        names = [f"--{name}" for name in chosen]
        raise click.UsageError(f"{', '.join(names[:-1])} and {names[-1]} exclude each other")


def decoding_options(function: Function) -> Function:
    """Add ``--beam`` and ``--set KEY=VALUE``, which change how the run speaks."""
    function = click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="KEY=VALUE",
        help="Change how the run decodes, such as --set method=diverse_beam --set groups=5 or "
        "--set method=sample --set nucleus=0.9; the keys are those of `decoding` in params.yaml.",
    )(function)
    return click.option(
        "--beam", type=click.IntRange(1), help="Beam width; the run's own by default."
    )(function)


def decoding_settings(beam: int | None, assignments: tuple[str, ...]) -> dict[str, Any]:
    """Return what `decoding_options` changes of the run's decoding parameters."""
    from capscope.params import load_section

    settings = {} if beam is None else {"method": "beam", "beam": beam}
    return {**settings, **load_section("decoding", assignments)}


IMAGES = click.Path(path_type=Path)
DEFAULT_RUN = Path("results/scenes/runs/gridtd/xe/seed1")


def run_option(function: Function) -> Function:
    """Add ``--run DIR``, the trained run to use; by default that of the demo."""
    return click.option(
        "--run",
        "run_dir",
        type=FOLDER,
        default=str(DEFAULT_RUN),
        show_default=True,
        help="A trained run; `make demo` makes the default one.",
    )(function)
