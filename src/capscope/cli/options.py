"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


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


IMAGES = click.Path(path_type=Path)
DEFAULT_RUN = Path("results/scenes/runs/gridtd/xe/seed1")


def run_option(function: Function) -> Function:
    """Add ``--run DIR``, the trained run to use; by default that of the demo."""
    return click.option(
        "--run",
        "run_dir",
        type=FOLDER,
        default=DEFAULT_RUN,
        show_default=True,
        help="A trained run; `make demo` makes the default one.",
    )(function)
