"""`quorate member`: who belongs to the cluster, and changing that while it serves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from quorate.cli.admin import Members, MemberStatus, NoAnswer, NodeStatus
from quorate.cli.changes import Settling, change_members
from quorate.cli.cluster_view import CLUSTER_GROUP, ClusterView, view_cluster
from quorate.cli.endpoints import command_line, endpoint_option, no_node_answers
from quorate.cli.errors import CommandError, Interrupted
from quorate.cli.tables import render_table
from quorate.node.config import WILDCARD_HOSTS, Address, parse_address

DEFAULT_TIMEOUT_S = 60.0

EPILOG = """\b
Examples:
  quorate member list
  quorate member add 3 10.0.0.4:3181        then start node 3, with join = true in its settings
  quorate member promote 3                  let it vote once it has everything
  quorate member replace 1 4 10.0.0.5:3181  node 4 takes node 1's place
  quorate member remove 2 --dry-run         what would that do to the quorum?

\b
Exit codes:
  0   done, and every group has followed (with --no-wait: decided)
  1   refused, and nothing was changed; or decided, and not every group has followed in time
  3   unknown: look with `quorate member list` before you try again
  130 Ctrl-C; what had been decided by then goes on by itself, and the last line says so

docs/deployment.md shows how a cluster grows, docs/membership.md what happens inside.
"""

Command = TypeVar("Command", bound=Callable[..., Any])


def change_options(command: Command) -> Command:
    """What all changes of members have in common."""
    options = (
        click.option("--dry-run", is_flag=True, help="Only say what it would do to the quorum."),
        click.option("--force", is_flag=True, help="Do it even where that endangers the quorum."),
        click.option("--no-wait", is_flag=True, help="Return when it is decided, not when every group has followed."),
        click.option(
            "--timeout",
            "timeout_s",
            type=click.FloatRange(min=0),
            default=DEFAULT_TIMEOUT_S,
            show_default=True,
            metavar="SECONDS",
            help="How long to wait for the groups.",
        ),
        endpoint_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def peer_address(context: click.Context, parameter: click.Parameter, value: str) -> Address:
    """HOST:PORT where the other nodes reach a node."""
    try:
        address = parse_address(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if address.host in WILDCARD_HOSTS:
        raise click.BadParameter(f"{address} is not an address that the other nodes can connect to")
    return address


NODE = click.IntRange(0, 999_999_999)


@click.group(epilog=EPILOG)
def member() -> None:
    """List, add, promote, remove and replace the members of a running cluster."""


# --- list ------------------------------------------------------------------------------------


@member.command(
    "list",
    epilog="""\b
Examples:
  quorate member list
  quorate member list --endpoint 10.0.0.2:4181 --json

\b
Roles:
  voter      decides
  learner    gets everything and decides nothing: promote it when its lag is near 0;
             with "replaces 1" it votes in node 1's place by itself when it has caught up
  refilling  came back without its data, and votes again by itself when it has caught up
  leaving    removed, but not every group has followed yet
""",
)
@endpoint_option
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def list_members(endpoints: list[Address], as_json: bool) -> None:
    """Show the members, what they are and how far each is behind."""
    try:
        view = asyncio.run(view_cluster(endpoints))
    except NoAnswer as error:
        raise no_node_answers(error) from error
    if not view.statuses():
        raise CommandError("no node answers any more; try again")
    click.echo(json.dumps(as_data(view), indent=2) if as_json else as_text(view))


def informant(view: ClusterView) -> NodeStatus:
    """Whose word about the members counts: the leader of the cluster's group sees who is connected."""
    newest = view.newest()
    agreement = view.agreement(CLUSTER_GROUP)
    for status in view.statuses():
        if agreement is not None and status.node == agreement.leader:
            return status if status.membership.version == newest.membership.version else newest
    return newest


def lags(view: ClusterView) -> dict[int, int]:
    """Entries by which each node that answers is behind, in the group where that is most."""
    highest = view.highest_commits()
    return {
        status.node: max(highest[group.group] - group.applied_position for group in status.groups)
        for status in view.statuses()
        if status.groups
    }


def as_data(view: ClusterView) -> dict[str, object]:
    """The JSON of `--json`."""
    status = informant(view)
    behind = lags(view)
    return {
        "cluster": status.cluster,
        "cluster_id": status.cluster_id,
        "version": status.membership.version,
        "under_way": dict(status.membership.under_way),
        "members": [
            {
                "node": m.node,
                "role": role_of(m),
                "peer": m.peer,
                "admin": m.admin or None,
                "connected": m.connected,
                "incarnation": m.incarnation or None,
                "replaces": m.replaces,
                "lag": behind.get(m.node),
            }
            for m in status.members
        ],
    }


def role_of(member: MemberStatus) -> str:
    if member.leaving:
        return "leaving"
    if member.refilling:
        return "refilling"
    return "voter" if member.voter else "learner"


def as_text(view: ClusterView) -> str:
    status = informant(view)
    behind = lags(view)
    rows = [
        [
            str(m.node),
            role_of(m) if m.replaces is None or m.voter else f"{role_of(m)}, replaces {m.replaces}",
            m.peer,
            m.admin or "?",
            "yes" if m.connected else "no",
            (m.incarnation or "")[:8] or "not come yet",
            f"{behind[m.node]:,}" if m.node in behind else "-",
        ]
        for m in status.members
    ]
    heads = ["node", "role", "address", "admin", "connected", "incarnation", "lag"]
    membership = status.membership
    if status.cluster_id:
        voters = sum(m.voter and not m.leaving for m in status.members)
        about = f"id {status.cluster_id}, version {membership.version}, {voters} voter{'s' if voters != 1 else ''}"
    else:
        about = "not formed yet"
    lines = [f"cluster {status.cluster} ({about})", "", render_table(heads, rows, right=frozenset({"lag"}))]
    notes = [
        f"under way: group {group_name(status, group)} is at version {version} of {membership.version}"
        for group, version in membership.under_way.items()
    ]
    notes += [
        f"node {answer.node} is {answer.state}: {answer.waiting_for or 'it waits for the others'}"
        for answer in view.statuses()
        if answer.state != "member"
    ]
    if view.agreement(CLUSTER_GROUP) is None:
        notes.append("no leader of the cluster's own group is followed by a quorum: nothing can be changed now")
    return "\n".join([*lines, *([""] if notes else []), *notes])


def group_name(status: NodeStatus, group: str) -> str:
    return next((g.service for g in status.groups if str(g.group) == group), group)


# --- changes ---------------------------------------------------------------------------------


@member.command(
    epilog="""\b
Examples:
  quorate member add 3 10.0.0.4:3181 --dry-run
  quorate member add 3 10.0.0.4:3181

The node may run already, waiting to be let in, or be started afterwards: its settings say
join = true. It learns everything without a say; `quorate member promote` has it vote.
"""
)
@click.argument("node", metavar="ID", type=NODE)
@click.argument("address", metavar="HOST:PORT", callback=peer_address)
@change_options
def add(
    node: int,
    address: Address,
    endpoints: list[Address],
    dry_run: bool,
    force: bool,
    no_wait: bool,
    timeout_s: float,
) -> None:
    """Let a new node in, as a learner.

    HOST:PORT is where the other nodes reach it (its listen.peer).
    """
    change = {"change": "add", "node": node, "address": str(address)}

    def learner(members: Members, status: NodeStatus) -> str:
        came = members.member(node)
        promote = command_line(f"member promote {node}", endpoints)
        if came is not None and came.incarnation:
            words = f"node {node} is a learner. When it has caught up, let it vote:  {promote}"
        else:
            words = f"node {node} is a learner. {how_to_start(node, address, members, status)}\nthen  {promote}"
        return f"{words}{reminder(members)}"

    _change(change, endpoints, dry_run, force, no_wait, timeout_s, present(node), learner, undo=f"member remove {node}")


@member.command(
    epilog="""\b
Examples:
  quorate member promote 3 --dry-run
  quorate member promote 3

Each group has the node vote when it has caught up; until then nothing changes for the others.
"""
)
@click.argument("node", metavar="ID", type=NODE)
@change_options
def promote(node: int, endpoints: list[Address], dry_run: bool, force: bool, no_wait: bool, timeout_s: float) -> None:
    """Let a learner vote, as soon as it has caught up."""

    def votes(members: Members, status: NodeStatus) -> str:
        return f"node {node} votes"

    change = {"change": "promote", "node": node}
    _change(change, endpoints, dry_run, force, no_wait, timeout_s, present(node), votes, undo=f"member remove {node}")


@member.command(
    epilog="""\b
Examples:
  quorate member remove 2 --dry-run
  quorate member remove 2

The node ends by itself, with exit code 0, and its data folder is of no use any more: to
come back, a node needs an empty folder and `quorate member add`.
Also takes an `add` or a `promote` back that is still under way.
"""
)
@click.argument("node", metavar="ID", type=NODE)
@change_options
def remove(node: int, endpoints: list[Address], dry_run: bool, force: bool, no_wait: bool, timeout_s: float) -> None:
    """Take a node out of the cluster, voter or learner."""

    def gone(members: Members, status: NodeStatus) -> str:
        return f"node {node} is no member any more; its process ends by itself"

    change = {"change": "remove", "node": node}
    _change(change, endpoints, dry_run, force, no_wait, timeout_s, absent(node), gone)


@member.command(
    epilog="""\b
Examples:
  quorate member replace 1 4 10.0.0.5:3181 --dry-run
  quorate member replace 1 4 10.0.0.5:3181

Adds node NEW, refills it, and then has it vote in the place of node OLD, in one step: at no
time are there fewer voters than now. Start the new node before or meanwhile, with join = true.
"""
)
@click.argument("old", metavar="OLD", type=NODE)
@click.argument("new", metavar="NEW", type=NODE)
@click.argument("address", metavar="HOST:PORT", callback=peer_address)
@change_options
def replace(
    old: int,
    new: int,
    address: Address,
    endpoints: list[Address],
    dry_run: bool,
    force: bool,
    no_wait: bool,
    timeout_s: float,
) -> None:
    """Put node NEW, reached at HOST:PORT, in the place of node OLD."""
    change = {"change": "replace", "node": old, "new_node": new, "address": str(address)}

    def replaced(members: Members) -> bool:
        came = members.member(new)
        return came is not None and came.voter and absent(old)(members)

    def done(members: Members, status: NodeStatus) -> str:
        return f"node {new} votes in the place of node {old}, whose process ends by itself"

    def start(members: Members, status: NodeStatus) -> str | None:
        came = members.member(new)
        return None if came is not None and came.incarnation else how_to_start(new, address, members, status)

    _change(change, endpoints, dry_run, force, no_wait, timeout_s, replaced, done, start, undo=f"member remove {new}")


def present(node: int) -> Callable[[Members], bool]:
    return lambda members: members.member(node) is not None


def absent(node: int) -> Callable[[Members], bool]:
    return lambda members: members.member(node) is None


Words = Callable[[Members, NodeStatus], str | None]
"""What to say, of the members after a change and the node's status before it."""


def _change(
    change: Mapping[str, object],
    endpoints: Sequence[Address],
    dry_run: bool,
    force: bool,
    no_wait: bool,
    timeout_s: float,
    complete: Callable[[Members], bool],
    done: Words,
    meanwhile: Words = lambda members, status: None,
    undo: str | None = None,
) -> None:
    """Ask for a change, and wait until every group has followed and it is `complete`.

    `undo` is the command that takes it back.  Raises CommandError, OutcomeUnknown, Interrupted.
    """
    look = command_line("member list", endpoints)
    back = f", or take it back with `{command_line(undo, endpoints)}`" if undo is not None else ""
    goes_on = f"It goes on by itself: watch it with `{look}`{back}."

    async def run() -> None:
        address, status, verdict = await change_members(endpoints, change, dry_run=dry_run, force=force)
        if dry_run:
            return
        if no_wait:
            click.echo(f"decided: version {verdict.version}. The groups follow by themselves; watch with `{look}`")
            return
        settling = Settling(address, status, verdict.version)
        try:
            await settling.wait(complete, 0)
            if settling.latest is not None and (words := meanwhile(settling.latest, status)) is not None:
                click.echo(words)
            members = await settling.wait(complete, timeout_s)
        except asyncio.CancelledError:
            # Ctrl-C: asyncio.run cancels what it runs.
            raise Interrupted(
                f"interrupted, but decided (version {verdict.version}); not done yet: {settling.waiting_for()}. "
                f"{goes_on}"
            ) from None
        if members is None:
            raise CommandError(
                f"decided (version {verdict.version}), but not done after {timeout_s:g} s: {settling.waiting_for()}. "
                f"{goes_on}"
            )
        if (words := done(members, status)) is not None:
            click.echo(words)

    asyncio.run(run())


def reminder(members: Members) -> str:
    """For the node that was alone until now; "" where several vote."""
    voters = [m.node for m in members.members if m.voter]
    if len(voters) != 1:
        return ""
    return (
        f"\nNode {voters[0]} is the only voter. Put `join = true` into its settings too, and list the others there: "
        "should it ever lose its folder, it then waits to be let in instead of forming a new, empty cluster."
    )


def how_to_start(node: int, address: Address, members: Members, status: NodeStatus) -> str:
    """The settings with which a node that was added is started."""
    known = [m for m in members.members if m.node != node and not m.leaving]
    listed = "\n".join(f'  {m.node} = "{m.peer}"' for m in known)
    services = [group.service for group in status.groups if group.group != CLUSTER_GROUP]
    return f"""\
Start it with

  cluster = "{status.cluster}"
  node = {node}
  data = "DIR"                  # an empty folder
  protocol = "{status.protocol}"
  services = {json.dumps(services)}
  join = true
  [members]
{listed}
  {node} = "{address}"

in a file, as  quorate node --config FILE"""
