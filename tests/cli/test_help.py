"""What every command has, whichever it is."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from tests.cli.conftest import Shell
from typer.main import get_command

import tidepost
from tidepost.cli.app import app

COMMANDS: dict[str, Any] = {
    name: one
    for name, one in get_command(app).commands.items()  # type: ignore[attr-defined]
    if not hasattr(one, "commands")
}
HEAVY = {"duckdb", "pyarrow", "sqlalchemy", "alembic", "fastapi", "uvicorn", "requests", "yaml", "rich"}


def imported(*arguments: str) -> set[str]:
    """The top-level modules that are loaded after a command."""
    program = (
        "import sys, json\n"
        "from tidepost.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "print(json.dumps([code, sorted({name.partition('.')[0] for name in sys.modules})]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    return set(modules)


def test_the_commands_are_these() -> None:
    expected = (
        "demo init validate plan run backfill ground-truth stream status reconcile resend rejects release skip pause "
        "resume purge sandbox version"
    )
    assert list(COMMANDS) == expected.split()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_what_it_does_and_shows_an_example(name: str) -> None:
    command = COMMANDS[name]
    assert command.help.strip()
    assert f"\n  tidepost {name}" in command.epilog


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_the_options_that_all_have(name: str) -> None:
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert {"--json", "--project", "--log-format", "--verbose"} <= options


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_and_argument_is_explained(name: str) -> None:
    unexplained = [parameter.name for parameter in COMMANDS[name].params if not parameter.help]
    assert not unexplained


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("demo", "--help"), ("version",)])
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert not imported(*arguments) & HEAVY


def test_the_version_is_that_of_the_package(shell: Shell) -> None:
    assert shell("--version").out == f"{tidepost.__version__}\n"
    assert shell("version", "--json").document == {"version": tidepost.__version__}
