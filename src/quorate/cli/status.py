"""`quorate status`: what each node of a running cluster says about itself."""

from __future__ import annotations

import asyncio
import json
import sys

import click

from quorate.cli.admin import NoAnswer
from quorate.cli.cluster_view import ClusterView, NodeView, view_cluster
from quorate.cli.errors import EXIT_FAILURE, CommandError
from quorate.cli.tables import render_table, show_bytes
from quorate.node.config import Address, parse_address

DEFAULT_ENDPOINTS = tuple(f"127.0.0.1:{port}" for port in (4181, 4182, 4183))
"""The admin listeners of `quorate up`, so that the answer does not hang on node 0 being alive."""

EPILOG = """\b
Examples:
  quorate status
  quorate status --endpoint 10.0.0.2:4181
  quorate status --endpoint 127.0.0.1:2182       (a port for ZooKeeper clients will do)
  quorate status --json | python3 -m json.tool

\b
Columns:
  term        the leadership in which the node is; all nodes of a healthy cluster agree
  committed   position in the log up to which a majority holds the entries, as far as the node knows
  applied     position up to which the node's own data contains them
  lag         how far `applied` is behind the highest `committed` of all nodes
"""


@click.command(epilog=EPILOG)
@click.option(
    "--endpoint",
    "endpoints",
    metavar="HOST:PORT",
    multiple=True,
    default=DEFAULT_ENDPOINTS,
    show_default=True,
    help="Admin listener of any node; the others are found from it. "
    "May be given more than once: the first that answers is used.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything the nodes say, as JSON.")
def status(endpoints: tuple[str, ...], as_json: bool) -> None:
    """Show nodes, roles, positions and sizes of a running cluster.

    Exit code 0 where a majority of the nodes follows one leader, else 1.
    """
    addresses: list[Address] = []
    for endpoint in endpoints:
        try:
            addresses.append(parse_address(endpoint))
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--endpoint") from error
    try:
        view = asyncio.run(view_cluster(addresses))
    except NoAnswer as error:
        raise CommandError(
            f"no node answers ({error}). Is the cluster running (`quorate up`)? "
            "Give the address of an admin listener with --endpoint."
        ) from error
    click.echo(json.dumps(as_data(view), indent=2) if as_json else as_text(view))
    if view.agreement() is None:
        sys.exit(EXIT_FAILURE)


def as_data(view: ClusterView) -> dict[str, object]:
    """The JSON of `--json`."""
    agreement = view.agreement()
    return {
        "quorum": agreement is not None,
        "leader": agreement.leader if agreement else None,
        "generation": agreement.generation if agreement else None,
        "nodes": [
            {
                "node": node.node,
                "admin": str(node.admin) if node.admin else None,
                "problem": node.problem or None,
                "status": node.answer.raw if node.answer else None,
            }
            for node in view.nodes
        ],
    }


def as_text(view: ClusterView) -> str:
    """A sentence and a table, one row a node and group."""
    statuses = view.statuses()
    if not statuses:
        return "no node answers any more"
    first = statuses[0]
    # Generation is the word common to all protocols; people know each protocol's own.
    term = "term" if first.protocol == "raft" else "generation"
    highest: dict[int, int] = {}
    for status in statuses:
        for group in status.groups:
            highest[group.group] = max(highest.get(group.group, 0), group.commit_position)
    heads = ["node", "role", term, "committed", "applied", "lag", "log", "snapshot", "zookeeper", "admin"]
    rows = [row for node in view.nodes for row in _rows(node, highest)]
    if len(highest) > 1:
        heads.insert(1, "group")
    else:
        rows = [row[:1] + row[2:] for row in rows]
    right = frozenset({term, "committed", "applied", "lag", "log", "snapshot"})
    lines = [_headline(view, first.cluster, first.protocol, term), "", render_table(heads, rows, right=right)]
    problems = [f"node {node.node} does not answer: {node.problem}" for node in view.nodes if node.answer is None]
    problems += [f"node {status.node} refuses writes: its disk is full" for status in statuses if status.log_full]
    if problems:
        lines += ["", *problems]
    return "\n".join(lines)


def _headline(view: ClusterView, cluster: str, protocol: str, term: str) -> str:
    count = len(view.nodes)
    nodes = f"{count} node{'s' if count > 1 else ''}"
    agreement = view.agreement()
    if agreement is None:
        verdict = f"NO QUORUM: no leader is followed by {count // 2 + 1} of {nodes}"
    else:
        verdict = f"node {agreement.leader} leads in {term} {agreement.generation}"
        if not agreement.ready:
            verdict += ", not ready for requests yet"
    return f"cluster {cluster} ({nodes}, {protocol}): {verdict}"


def _rows(view: NodeView, highest: dict[int, int]) -> list[list[str]]:
    admin = str(view.admin or "?")
    if view.answer is None:
        return [[str(view.node), "", "unreachable", *["-"] * 7, admin]]
    status = view.answer.status
    return [
        [
            str(status.node),
            str(group.group),
            group.role,
            str(group.generation),
            f"{group.commit_position:,}",
            f"{group.applied_position:,}",
            f"{highest[group.group] - group.applied_position:,}",
            show_bytes(status.log_bytes),
            show_bytes(group.snapshot_bytes) if group.snapshot_bytes else "-",
            status.endpoints.get("zookeeper", "?"),
            admin,
        ]
        for group in status.groups
    ]
