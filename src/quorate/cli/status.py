"""`quorate status`: what each node of a running cluster says about itself."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator

import click

from quorate.cli.admin import NoAnswer
from quorate.cli.cluster_view import CLUSTER_GROUP, ClusterView, NodeView, heading_of, view_cluster
from quorate.cli.endpoints import endpoint_option, no_node_answers
from quorate.cli.errors import EXIT_FAILURE
from quorate.cli.tables import render_table, show_bytes
from quorate.node.config import Address

EPILOG = """\b
Examples:
  quorate status
  quorate status --endpoint 10.0.0.2:4181
  quorate status --endpoint 127.0.0.1:2182       (a port for clients will do)
  quorate status --json | python3 -m json.tool

\b
Columns:
  role        leader, follower, candidate; a learner gets everything and decides nothing;
              a node that is forming or joining is not let in yet (what it waits for is said below)
  term        the leadership in which the node is, by the protocol's own word (Raft: term, ZAB: epoch,
              Paxos: ballot, as round.node); all nodes of a healthy cluster agree
  committed   position in the log up to which a quorum holds the entries, as far as the node knows
  applied     position up to which the node's own data contains them
  lag         how far `applied` is behind the highest `committed` of all nodes
"""


@click.command(epilog=EPILOG)
@endpoint_option
@click.option("--json", "as_json", is_flag=True, help="Print everything the nodes say, as JSON.")
def status(endpoints: list[Address], as_json: bool) -> None:
    """Show nodes, roles, positions and sizes of a running cluster.

    Exit code 0 where every service has a leader that a quorum of the voters follows, else 1.
    """
    try:
        view = asyncio.run(view_cluster(endpoints))
    except NoAnswer as error:
        raise no_node_answers(error) from error
    click.echo(json.dumps(as_data(view), indent=2) if as_json else as_text(view))
    if not view.is_led():
        sys.exit(EXIT_FAILURE)


def as_data(view: ClusterView) -> dict[str, object]:
    """The JSON of `--json`."""
    return {
        "quorum": view.is_led(),
        "services": {
            service: {
                "leader": led.leader,
                "generation": led.generation,
                "leadership": " ".join(led.term),
                "ready": led.ready,
            }
            if led
            else None
            for service, led in view.leaders().items()
        },
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
    """A sentence and a table, one row a node and service."""
    statuses = view.statuses()
    if not statuses:
        return "no node answers any more"
    first = statuses[0]
    services = [*view.leaders()]
    groups = [group for status in statuses for group in status.groups if group.group != CLUSTER_GROUP]
    term = heading_of(group.in_own_words()[0] for group in groups)
    heads = ["node", "service", "role", term, "committed", "applied", "lag", "log", "snapshot", "clients", "admin"]
    rows = [row for node in view.nodes for row in _rows(node, view.highest_commits())]
    if len(services) < 2:
        heads.remove("service")
        heads[heads.index("clients")] = services[0] if services else "clients"
        rows = [row[:1] + row[2:] for row in rows]
    right = frozenset({term, "committed", "applied", "lag", "log", "snapshot"})
    lines = [_headline(view, first.cluster, first.protocol), "", render_table(heads, rows, right=right)]
    if problems := list(_problems(view)):
        lines += ["", *problems]
    return "\n".join(lines)


def _headline(view: ClusterView, cluster: str, protocol: str) -> str:
    count = len(view.nodes)
    voters = len(view.voters())
    nodes = f"{count} node{'s' if count > 1 else ''}"
    if voters and voters != count:
        nodes += f", {voters} of them voting"
    leaders = view.leaders()
    leaderless = [service for service, led in leaders.items() if led is None]
    if not voters:
        verdict = "NO QUORUM: the cluster is not formed yet"
    elif leaderless:
        where = f" for {' and '.join(leaderless)}" if len(leaders) > 1 else ""
        majority = "a quorum" if ":" in protocol else f"{voters // 2 + 1} of {voters} voter{'s' if voters > 1 else ''}"
        verdict = f"NO QUORUM{where}: no leader is followed by {majority}"
    else:
        verdict = ", ".join(
            f"node {led.leader} leads{f' {service}' if len(leaders) > 1 else ''} in {' '.join(led.term)}"
            f"{'' if led.ready else ', not ready for requests yet'}"
            for service, led in leaders.items()
            if led is not None
        )
    return f"cluster {cluster} ({nodes}, {protocol}): {verdict}"


def _problems(view: ClusterView) -> Iterator[str]:
    """What people have to know beside the table."""
    for node in view.nodes:
        if node.answer is None:
            yield f"node {node.node} does not answer: {node.problem}"
    for status in view.statuses():
        if status.state != "member":
            yield f"node {status.node} is {status.state}: {status.waiting_for or 'it waits for the others'}"
        if status.log_full:
            yield f"node {status.node} refuses writes: its disk is full"
    if view.is_led() and view.agreement(CLUSTER_GROUP) is None:
        yield "no leader of the cluster's own group is followed by a quorum: the members cannot be changed now"
    newest = view.newest()
    for member in newest.members:
        if member.refilling:
            yield f"node {member.node} is being refilled: it votes again when it has caught up"
    if newest.membership.under_way:
        yield f"a change of the members is under way (version {newest.membership.version}): see `quorate member list`"


def _rows(view: NodeView, highest: dict[int, int]) -> list[list[str]]:
    admin = str(view.admin or "?")
    if view.answer is None:
        return [[str(view.node), "", "unreachable", *["-"] * 7, admin]]
    status = view.answer.status
    log = show_bytes(status.log_bytes)
    groups = [group for group in status.groups if group.group != CLUSTER_GROUP]
    if status.state != "member" or not groups:
        return [[str(status.node), "", status.state, *["-"] * 4, log, "-", "-", admin]]
    return [
        [
            str(status.node),
            group.service,
            group.role,
            group.in_own_words()[1],
            f"{group.commit_position:,}",
            f"{group.applied_position:,}",
            f"{highest[group.group] - group.applied_position:,}",
            log,
            show_bytes(group.snapshot_bytes) if group.snapshot_bytes else "-",
            status.endpoints.get(group.service, "?"),
            admin,
        ]
        for group in groups
    ]
