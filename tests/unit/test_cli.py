"""The command line: instant help, one clear line for a user's mistake."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

from capscope import __version__, cli
from capscope.errors import CapscopeError

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-c", "from capscope.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        **options,
    )


def test_help_lists_every_command_and_imports_nothing_heavy():
    code = (
        "import sys; from capscope.cli import capscope; "
        "capscope(['--help'], standalone_mode=False); "
        "heavy = {'torch', 'numpy', 'pandas', 'matplotlib', 'jsonschema', 'yaml', 'PIL'}; "
        "sys.exit(sorted(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in cli.COMMANDS:
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_a_module_with_help_on_each_option(name):
    command = cli.capscope.get_command(click.Context(cli.capscope), name)
    assert command is not None
    commands = command.commands.values() if isinstance(command, click.Group) else [command]
    for one in commands:
        assert one.help, f"{name} does not say what it does"
        for option in one.params:
            assert not isinstance(option, click.Option) or option.help, f"{name} {option.name}"


def test_the_version_is_printed():
    done = run("--version")
    assert done.returncode == 0
    assert __version__ in done.stdout


def test_an_unknown_command_is_named():
    done = run("capton")
    assert done.returncode == 2
    assert "capton" in done.stderr


def test_an_unknown_parameter_ends_a_command_with_one_clear_error(tmp_path):
    out = tmp_path / "data"
    params = ("--params", str(ROOT / "params.yaml"), "--set", "decoding.baem=3")
    done = run("data", *params, "--out", str(out))
    assert done.returncode == 2
    assert "decoding.baem" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_a_user_error_has_no_traceback_and_a_bug_keeps_it(monkeypatch, capsys):
    def fail(error):
        def command(**_):
            raise error

        monkeypatch.setattr(cli, "capscope", command)
        cli.main()

    with pytest.raises(SystemExit) as left:
        fail(CapscopeError("photo.jpg is empty"))
    assert left.value.code == 2
    assert capsys.readouterr().err == "capscope: error: photo.jpg is empty\n"
    with pytest.raises(ZeroDivisionError):
        fail(ZeroDivisionError())
    with pytest.raises(SystemExit) as left:
        fail(click.Abort())
    assert left.value.code == 130
