"""The command as a whole: help, version, exit codes, start-up."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

import quorate
from quorate.cli.main import COMMANDS, main

SUBCOMMANDS = (
    "log inspect",
    *(f"member {name}" for name in ("list", "add", "promote", "remove", "replace")),
    *(f"leader {name}" for name in ("list", "transfer")),
    *(f"snapshot {name}" for name in ("save", "inspect", "restore")),
)


def test_version() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.output == f"quorate, version {quorate.__version__}\n"


def test_help_lists_every_command() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in result.output


@pytest.mark.parametrize("command", [*COMMANDS, *SUBCOMMANDS])
def test_help_of_every_command_explains_with_examples(command: str) -> None:
    result = CliRunner().invoke(main, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert f"  quorate {command}" in result.output


def test_an_unknown_command_is_one_line_and_a_hint() -> None:
    result = CliRunner().invoke(main, ["upp"])
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_commands_load_only_what_they_need() -> None:
    """`quorate --version` and `quorate status` answer at once: no event loop of a node, no storage, no protocol."""
    program = (
        "import sys; import quorate.cli.main; "
        "print('asyncio' in sys.modules); import quorate.cli.status; "
        "print([name for name in sys.modules if name.startswith(('quorate.storage', 'quorate.consensus', 'uvloop'))])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n[]\n"


def test_the_module_runs_as_the_command() -> None:
    result = subprocess.run([sys.executable, "-m", "quorate", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"quorate, version {quorate.__version__}\n"
