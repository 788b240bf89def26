"""How commands fail: one line for people, an exit code for scripts and supervisors."""

from __future__ import annotations

import click

EXIT_FAILURE = 1
EXIT_OUTCOME_UNKNOWN = 3
"""A change was asked for, and whether it was made is not known."""
EXIT_INTERRUPTED = 130
"""Ctrl-C, as a shell reports a program that ended by SIGINT; what was asked for may go on without the command."""
EXIT_DAMAGED_DATA = 74
"""A node's data is damaged (EX_IOERR of sysexits.h).  Starting it again cannot help."""
EXIT_WRONG_CONFIGURATION = 78
"""A node's settings are wrong (EX_CONFIG of sysexits.h).  Starting it again cannot help."""


class CommandError(click.ClickException):
    """An expected failure, printed as `Error: ...`: what is wrong and what to do about it."""


class WrongConfiguration(CommandError):
    """Settings are wrong; a supervisor should not start the command again."""

    exit_code = EXIT_WRONG_CONFIGURATION


class OutcomeUnknown(CommandError):
    """Something may have been changed, or may yet be: look before trying again."""

    exit_code = EXIT_OUTCOME_UNKNOWN


class Interrupted(CommandError):
    """Ctrl-C while something was under way that does not end with the command."""

    exit_code = EXIT_INTERRUPTED
