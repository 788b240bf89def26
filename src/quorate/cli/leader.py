"""`quorate leader`: who leads each group, and handing that over."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence

import click

from quorate.cli.admin import NoAnswer, Verdict, reachable
from quorate.cli.changes import ask, check_verdict
from quorate.cli.cluster_view import Agreement, ClusterView, admins_of, heading_of, quorum, view_cluster, view_members
from quorate.cli.endpoints import command_line, endpoint_option, no_node_answers
from quorate.cli.errors import EXIT_FAILURE, CommandError
from quorate.cli.tables import render_table
from quorate.node.config import Address, parse_address

DEFAULT_TIMEOUT_S = 10.0
POLL_S = 0.02
MAX_HOPS = 4
"""From a node that does not lead to the one that it names: more means that they do not agree."""

EPILOG = """\b
Examples:
  quorate leader list
  quorate leader transfer                             every group, each to the follower that is furthest
  quorate leader transfer --to 2                      every group to node 2
  quorate leader transfer --to 2 --service etcd
"""


@click.group(epilog=EPILOG)
def leader() -> None:
    """Show who leads, and hand the leadership over without an election timeout."""


@leader.command("list", epilog="\b\nExamples:\n  quorate leader list\n  quorate leader list --endpoint 10.0.0.2:4181")
@endpoint_option
def list_leaders(endpoints: list[Address]) -> None:
    """Show who leads each group.  Exit code 1 where one has no leader."""
    view = _view(endpoints)
    names = view.services()
    rows = []
    for group, service in names.items():
        agreement = view.agreement(group)
        if agreement is None:
            rows.append([service, "none", "-", "-", "-", "-"])
            continue
        admin = next(node.admin for node in view.nodes if node.node == agreement.leader)
        ready = "yes" if agreement.ready else "no"
        followed = _followed(view, group, agreement)
        rows.append([service, f"node {agreement.leader}", agreement.term[1], ready, followed, str(admin)])
    agreements = [view.agreement(group) for group in names]
    term = heading_of(agreement.term[0] for agreement in agreements if agreement is not None)
    click.echo(
        render_table(["service", "leader", term, "ready", "followed by", "admin"], rows, right=frozenset({term}))
    )
    if any(view.agreement(group) is None for group in names):
        sys.exit(EXIT_FAILURE)


def _followed(view: ClusterView, group: int, agreement: Agreement) -> str:
    replicas = {status.node: g for status in view.statuses() for g in status.groups if g.group == group}
    voters = quorum(replicas[agreement.leader]).members
    following = [node for node in voters if node in replicas and replicas[node].leader == agreement.leader]
    return f"{len(following)} of {len(voters)} voters"


def _view(endpoints: Sequence[Address]) -> ClusterView:
    try:
        view = asyncio.run(view_cluster(endpoints))
    except NoAnswer as error:
        raise no_node_answers(error) from error
    if not view.statuses():
        raise CommandError("no node answers any more; try again")
    if not view.group_ids():
        raise CommandError("the cluster is not formed yet: `quorate status` says what its nodes wait for")
    return view


@leader.command(
    epilog="""\b
Examples:
  quorate leader transfer --dry-run
  quorate leader transfer --to 2
  quorate leader transfer --service etcd

\b
Exit codes:
  0   handed over (with --dry-run: would be)
  1   refused, or nobody leads, or the leader still leads: it gives up where the other does not keep up
  3   unknown: look with `quorate leader list` before you try again

A node that is stopped with SIGTERM hands over by itself.
"""
)
@click.option("--to", type=click.IntRange(0), metavar="ID", help="Who is to lead.  [default: whoever is furthest]")
@click.option("--service", metavar="NAME", help="Only this service's group.  [default: every group]")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    default=DEFAULT_TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="For each group: how long to wait for a leader where there is none, and then for the new one.",
)
@endpoint_option
def transfer(to: int | None, service: str | None, dry_run: bool, timeout_s: float, endpoints: list[Address]) -> None:
    """Hand the leadership to another voter."""
    view = _view(endpoints)
    names = view.services()
    if service is not None and service not in names.values():
        raise click.BadParameter(f"there are {', '.join(names.values())}", param_hint="--service")
    look = command_line("leader list", endpoints)
    for group, name in names.items():
        if service in (None, name):
            asyncio.run(_hand_over(view, group, name, to, dry_run, timeout_s, look))


async def _hand_over(
    known: ClusterView, group: int, service: str, to: int | None, dry_run: bool, timeout_s: float, look: str
) -> None:
    status = known.newest()
    admins = {**admins_of(status), **{node.node: node.admin for node in known.nodes}}
    deadline_s = time.monotonic() + timeout_s
    while True:
        # Looked at anew: the leader may have been lost just now, maybe by what was done to another service before this.
        view = await view_members(admins, status.cluster, status.cluster_id)
        before = view.agreement(group)
        if before is not None:
            if before.leader == to:
                click.echo(f"{service}: node {to} leads already")
                return
            admin = next(node.admin for node in view.nodes if node.node == before.leader)
            assert admin is not None
            asked_s = time.monotonic()
            verdict = await _ask_leader(admin, {"service": service, "node": to, "dry_run": dry_run}, look)
            if verdict is not None:
                break
        if time.monotonic() >= deadline_s:
            raise CommandError(
                f"{service} has no leader, also after {timeout_s:g} s: there is nothing to hand over. "
                "`quorate status` says more."
            )
        await asyncio.sleep(POLL_S)
    check_verdict(verdict, dry_run=dry_run, force=False, look=look)
    if dry_run:
        click.echo(f"{service}: node {before.leader} leads")
        return
    while True:
        now = await view_members(admins, status.cluster, status.cluster_id)
        after = now.agreement(group)
        if after is not None and after.ready and after.leader != before.leader and to in (None, after.leader):
            break
        if time.monotonic() - asked_s >= timeout_s:
            leads = f"node {after.leader} leads" if after is not None else "nobody leads"
            raise CommandError(f"{service}: {leads} after {timeout_s:g} s. Nothing is lost; `{look}` shows who leads.")
        await asyncio.sleep(POLL_S)
    click.echo(
        f"{service}: node {before.leader} led, node {after.leader} leads now ({' '.join(after.term)}), "
        f"after {time.monotonic() - asked_s:.2f} s"
    )


async def _ask_leader(admin: Address, body: dict[str, object], look: str) -> Verdict | None:
    """Ask the node at `admin`, or whoever it says leads.  None where one of them knows of no leader.

    Raises CommandError, OutcomeUnknown.
    """
    for _ in range(MAX_HOPS):
        verdict = await ask(admin, "/transfer", body, look)
        if verdict.done or verdict.leader_admin is None:
            return verdict
        if not verdict.leader_admin:
            return None
        try:
            admin = reachable(parse_address(verdict.leader_admin), admin)
        except ValueError as error:
            raise CommandError(f"{admin} names a leader's address that is none: {error}") from error
    raise CommandError(f"the nodes do not agree on who leads {body['service']}; try again. `{look}` shows who leads.")
