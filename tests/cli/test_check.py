"""`quorate check`: what it prints and how it exits."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from quorate.cli.check import EPILOG
from quorate.cli.main import main

VALID = """\
{"type": "invoke", "process": 0, "f": "put", "key": "x", "value": 1}
{"type": "ok", "process": 0, "f": "put", "key": "x", "value": 1}
{"type": "invoke", "process": 2, "f": "put", "key": "x", "value": 2}
{"type": "invoke", "process": 1, "f": "get", "key": "x"}
{"type": "ok", "process": 1, "f": "get", "key": "x", "value": 2}
"""
INVALID = (
    VALID
    + """\
{"type": "invoke", "process": 1, "f": "get", "key": "x"}
{"type": "ok", "process": 1, "f": "get", "key": "x", "value": 1}
"""
)
HARD = "".join(
    f'{{"type": "invoke", "process": {number}, "f": "append", "key": "x", "value": "{number}"}}\n'
    for number in range(9)
)
HARD += '{"type": "invoke", "process": 10, "f": "put", "key": "x", "value": ""}\n'
HARD += '{"type": "invoke", "process": 11, "f": "get", "key": "x"}\n'
HARD += '{"type": "ok", "process": 11, "f": "get", "key": "x", "value": "z"}\n'
EDN = "{:process 0, :type :invoke, :f :write, :value [3 4]}\n{:process 0, :type :ok, :f :write, :value [3 4]}\n"


def check(*arguments: str | Path, stdin: str | bytes = "") -> Result:
    return CliRunner().invoke(main, ["check", *map(str, arguments)], input=stdin)


def test_a_valid_history(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    file.write_text(VALID)
    result = check(file, "--model", "kv")
    assert result.exit_code == 0
    assert result.output.startswith("valid: 3 operations of a kv, ")


def test_an_invalid_history_shows_what_cannot_be_ordered() -> None:
    result = check("-", "--model", "kv", stdin=INVALID)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0].startswith("invalid: 4 operations of a kv, ")
    assert lines[2] == 'These 4 operations on key "x" cannot be put in an order, whatever else happened:'
    assert lines[4:9] == [
        "line  process  operation                time",
        "   1        0  put 1                    |-----|",
        "   3        2  put 2 (outcome unknown)              |-----------------------------?",
        "   4        1  get -> 2                                   |-----|",
        "   6        1  get -> 1                                               |-----|",
    ]
    assert lines[12:] == [
        "  1. put 1 (line 1)",
        "  2. put 2 (outcome unknown) (line 3)",
        "  3. get -> 2 (line 4)",
        "  Then the value is 2.",
        "  get -> 1 (line 6) cannot follow.",
    ]


def test_an_undecided_history() -> None:
    result = check("-", "--model", "kv", "--max-steps", "1000", stdin=HARD)
    assert result.exit_code == 3
    assert result.output.startswith("undecided: 11 operations of a kv, ")
    assert 'The steps ran out on key "x".' in result.output


def test_a_history_of_jepsen() -> None:
    assert check("-", "--model", "register", stdin=EDN).exit_code == 0
    assert check("-", "--model", "kv", "--independent", stdin=EDN.replace(":write", ":put")).exit_code == 0
    assert check("-", "--model", "register", "--format", "edn", stdin=f"[{EDN}]").exit_code == 0
    assert "line 1: not JSON" in check("-", "--model", "register", "--format", "jsonl", stdin=EDN).output


@pytest.mark.parametrize(
    ("stdin", "options", "message"),
    [
        (VALID + "{", ["--model", "kv"], "Error: standard input: line 6: not JSON"),
        (VALID, ["--model", "register"], 'Error: standard input: line 1: "put" is no operation of a register'),
        ("", ["--model", "kv"], "Error: standard input: line 1: no events"),
        (b"\n\xff", ["--model", "kv"], "Error: standard input: line 2: not UTF-8"),
        ("[", ["--model", "kv"], "Error: standard input: line 1: [ is never closed"),
        (
            VALID,
            ["--model", "kv", "--independent"],
            '--independent is for EDN; in JSON lines the key is in the field "key"',
        ),
        ('[ {"type": "invoke"},\n{}]', ["--model", "kv"], "one object a line, with no array around them"),
        (VALID.replace("2", "[" * 985 + "]" * 985), ["--model", "kv"], "line 3: nested more than 100 deep"),
        (
            VALID + '{"type": "invoke", "process": 9, "f": "got", "key": "x"}\n{"type": "fail", "process": 9}',
            ["--model", "kv"],
            'line 6: "got" is no operation of a kv',
        ),
        (
            EDN + "{:process 9, :type :invoke, :f :get} {:process 9, :type :fail, :f :get}",
            ["--model", "register"],
            'line 3: "get" is no operation of a register',
        ),
        (VALID, ["--model", "tree"], "Invalid value for '--model'"),
        (VALID, [], "Missing option '--model'"),
    ],
)
def test_what_cannot_be_read_says_why(stdin: str | bytes, options: list[str], message: str) -> None:
    result = check("-", *options, stdin=stdin)
    assert result.exit_code == 2
    assert message in result.output


def test_a_bug_is_not_taken_for_an_invalid_history(monkeypatch: pytest.MonkeyPatch) -> None:
    def check_history(*_: object) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr("quorate.cli.check.check_history", check_history)
    result = check("-", "--model", "kv", stdin=VALID)
    assert result.exit_code == 2
    assert "Error: standard input: quorate has a bug with this history: RecursionError('too deep')" in result.output


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing = check(tmp_path / "missing", "--model", "kv")
    assert (missing.exit_code, missing.output) == (
        2,
        f"Error: cannot read {tmp_path / 'missing'}: No such file or directory\n",
    )
    folder = check(tmp_path, "--model", "kv")
    assert (folder.exit_code, folder.output) == (2, f"Error: cannot read {tmp_path}: Is a directory\n")


def test_the_history_in_the_help_is_one() -> None:
    events = "".join(f"{line}\n" for line in EPILOG.splitlines() if line.startswith('  {"'))
    assert check("-", "--model", "kv", stdin=events).output.startswith("valid: 2 operations of a kv")


def test_progress_on_a_terminal_and_an_interrupt() -> None:
    """Ctrl-C must not look like an invalid history, which exits with 1."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "quorate", "check", "-", "--model", "kv", "--max-steps", "1000000000"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    try:
        os.close(theirs)
        assert process.stdin is not None
        process.stdin.write(HARD.encode())
        process.stdin.close()
        shown = b""
        while b"steps" not in shown:
            shown += os.read(ours, 1000)
        assert b"0 of 11 operations checked, " in shown
        process.send_signal(signal.SIGINT)
        while b"Interrupted: nothing is decided." not in shown:
            shown += os.read(ours, 1000)
        assert process.wait() == 130
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        os.close(ours)
