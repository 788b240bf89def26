"""The `quorate` command: finds the module of the command asked for and runs it.

Each command is a module of this package, imported only when it is called, so that
`quorate status` does not wait for what `quorate node` needs.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType

import click

from quorate import __version__

COMMANDS = MappingProxyType(
    {
        "up": "quorate.cli.up:up",
        "status": "quorate.cli.status:status",
        "node": "quorate.cli.node:node",
        "member": "quorate.cli.member:member",
        "leader": "quorate.cli.leader:leader",
        "snapshot": "quorate.cli.snapshot:snapshot",
        "recover": "quorate.cli.recover:recover",
        "log": "quorate.cli.log:log",
        "check": "quorate.cli.check:check",
        "availability": "quorate.cli.availability:availability",
        "compare": "quorate.cli.compare:compare",
        "simulate": "quorate.cli.simulate:simulate",
    }
)
"""Command -> where it is, in the order in which help shows them."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command


EPILOG = """\b
Start here:
  quorate up                 a cluster of three nodes on this machine
  quorate status             who leads, how far each node is
  quorate COMMAND --help     each command explains itself, with examples
"""


@click.command(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="quorate")
def main() -> None:
    """A durable, replicated coordination service that etcd and ZooKeeper clients use unmodified."""
