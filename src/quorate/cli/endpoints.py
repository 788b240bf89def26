"""`--endpoint`: where a command finds the cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from quorate.cli.admin import NoAnswer, NodeStatus
from quorate.cli.cluster_view import first_answer
from quorate.cli.errors import CommandError
from quorate.node.config import Address, parse_address

DEFAULT_ENDPOINTS = tuple(f"127.0.0.1:{port}" for port in (4181, 4182, 4183))
"""The admin listeners of `quorate up`, so that the answer does not hang on node 0 being alive."""

Command = TypeVar("Command", bound=Callable[..., Any])


def _parse(context: click.Context, option: click.Parameter, value: Sequence[str]) -> list[Address]:
    try:
        return [parse_address(endpoint) for endpoint in value]
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def endpoint_option(command: Command) -> Command:
    """Gives a command the argument `endpoints`, a list of Address."""
    return click.option(
        "--endpoint",
        "endpoints",
        metavar="HOST:PORT",
        multiple=True,
        default=DEFAULT_ENDPOINTS,
        show_default=True,
        callback=_parse,
        help="Admin listener of any node; the others are found from it. "
        "May be given more than once. The first that answers carries a command out; who the members are "
        "is the word of the node that knows most, of all these and all that they name.",
    )(command)


def command_line(command: str, endpoints: Sequence[Address]) -> str:
    """`quorate COMMAND` for people to type, with the endpoints where they are not the default."""
    given = tuple(str(endpoint) for endpoint in endpoints)
    options = "" if given == DEFAULT_ENDPOINTS else "".join(f" --endpoint {endpoint}" for endpoint in given)
    return f"quorate {command}{options}"


def no_node_answers(error: NoAnswer) -> CommandError:
    """For people, where `view_cluster` or `first_answer` found nobody."""
    return CommandError(
        f"no node answers ({error}). Is the cluster running (`quorate up`)? "
        "Give the address of an admin listener with --endpoint."
    )


async def find_node(endpoints: Sequence[Address]) -> tuple[Address, NodeStatus]:
    """`first_answer`.  Raises CommandError."""
    try:
        return await first_answer(endpoints)
    except NoAnswer as error:
        raise no_node_answers(error) from error
