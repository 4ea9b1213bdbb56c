"""The command line: one command per workflow step, each in a module of its own.

Modules are imported only when their command runs, so that ``capscope --help`` is instant.
"""

from __future__ import annotations

import sys
from importlib import import_module

import click

from capscope import __version__
from capscope.errors import CapscopeError
from capscope.files import why_unwritable
from capscope.lifeline import end_with_workflow

COMMANDS = {
    "caption": "Caption your own image with a trained run.",
    "explain": "Caption your own image and show which part of it made each word.",
    "data": "Prepare a data set: draw scenes, or check annotations and images of another.",
    "backbone": "Train the small grid network on scenes.",
    "detector": "Train the small detector on scenes.",
    "features": "Extract visual features into a feature store.",
    "vocabulary": "Build the vocabulary and encode the references.",
    "train": "Train a captioner; resumes by itself after an interruption.",
    "decode": "Caption a split with a trained run.",
    "spice-models": "Fetch the parser that the metric SPICE needs, once.",
    "evaluate": "Score generated captions against the references.",
    "compare": "Compare runs image by image on one self-contained page.",
    "frequencies": "Count document frequencies for CIDEr, or convert published ones.",
    "relevance": "Explain the captions of a split and store the relevance.",
    "objects": "Sum the relevance over the visual features of each object.",
    "benchmark": "Measure how good explanations are.",
    "latent": "Explain and evaluate in latent space as a published program does.",
    "plan": "Estimate time, memory and disk of a workflow from measured rates.",
    "report": "Collect the results into tables and one self-contained page.",
    "verify": "Compare results with their manifests; say what to make again.",
    "provenance": "Say how a row of a table came about, or export how everything did.",
    "methods": "Lay methods x measures x data sets out in one table.",
    "import": "Turn an original checkpoint into a run.",
    "export": "Write a run or a data set in an original layout.",
}
MODULES = {"import": "importing", "export": "exporting", "spice-models": "spice_models"}
"""Commands whose module has another name, because theirs is none in Python."""


class LazyGroup(click.Group):
    """A command group that imports the module of a command when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they are used."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module = MODULES.get(cmd_name, cmd_name)
        command: click.Command = import_module(f"capscope.cli.{module}").command
        command.name = cmd_name
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from `COMMANDS` without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def capscope() -> None:
    """Train image captioners, explain every word they say, measure the explanations.

    \b
    Try it:              make demo
    Your own image:      capscope explain photo.jpg
    The whole workflow:  snakemake --cores 8 all
    """


def main() -> None:
    """Run the command line; a user's error is one message and exit status 2."""
    end_with_workflow()
    try:
        capscope(standalone_mode=False)
    except CapscopeError as error:
        click.echo(f"capscope: error: {error}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("capscope: interrupted", err=True)
        sys.exit(130)
    except (MemoryError, OSError, RuntimeError) as error:
        if not isinstance(error, PermissionError) and (reason := why_unwritable(error)):
            place = getattr(error, "filename", None) or "a file"
            click.echo(f"capscope: error: cannot write {place}: {reason}. Free space.", err=True)
            sys.exit(2)
        if not _is_lack_of_memory(error):
            raise
        detail = str(error).partition("\n")[0] or type(error).__name__
        click.echo(
            f"capscope: error: there is not enough memory ({detail}). Lower the batch size, or "
            "give the job more; what was finished stays",
            err=True,
        )
        sys.exit(2)


def _is_lack_of_memory(error: Exception) -> bool:
    """Tell a lack of memory from other failures; PyTorch has no type of its own on a CPU."""
    words = (
        *("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory"),
        "can't start new thread",  # there is none for its stack
    )
    return isinstance(error, MemoryError) or any(one in str(error).lower() for one in words)
