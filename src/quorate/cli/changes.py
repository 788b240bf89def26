"""A change of the members: asking for it, what a node says about it, and waiting until every group has followed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence

import click

from quorate.cli.admin import (
    Members,
    MemberStatus,
    NoAnswer,
    NodeStatus,
    Undecided,
    Verdict,
    ask_for_change,
    fetch_members,
)
from quorate.cli.cluster_view import admin_of
from quorate.cli.endpoints import command_line, find_node
from quorate.cli.errors import CommandError, Interrupted, OutcomeUnknown
from quorate.cli.progress import ProgressLine
from quorate.node.config import Address

DECISION_TIMEOUT_S = 30.0
"""For one answer: the node itself gives up sooner and says so."""
POLL_TIMEOUT_S = 2.0
POLL_S = 0.1


async def ask(address: Address, path: str, body: Mapping[str, object], look: str) -> Verdict:
    """Ask a node to change something, and print what it says.

    `look` is the command that shows how things are.  Raises CommandError where it was not
    done, though no dry run was asked for, OutcomeUnknown where nobody knows.
    """
    try:
        verdict = await ask_for_change(address, path, body, DECISION_TIMEOUT_S)
    except NoAnswer as error:
        raise CommandError(f"{address} did not answer: {error}. Nothing was changed.") from error
    except Undecided as error:
        raise OutcomeUnknown(
            f"the outcome is unknown: {error}. It may have been decided, or may yet be: "
            f"look with `{look}` before you try again."
        ) from error
    for line in verdict.lines:
        # What is wrong is said last, with what to do about it, and once.
        if not any(reason is not None and reason in line for reason in (verdict.problem, verdict.danger)):
            click.echo(line)
    return verdict


def check_verdict(verdict: Verdict, *, dry_run: bool, force: bool, look: str) -> None:
    """Raises CommandError where a change was refused, or would be."""
    unchanged = "" if dry_run else " Nothing was changed."
    if verdict.problem is not None:
        raise CommandError(f"{_sentence(verdict.problem)}{unchanged} `{look}` shows how things are.")
    if verdict.danger is not None:
        if not force:
            raise CommandError(f"{_sentence(verdict.danger)}{unchanged} If you want that, run it again with --force.")
        click.echo(f"by force: {verdict.danger}")
    if dry_run:
        click.echo("dry run: nothing was changed")
    elif not verdict.done:
        raise CommandError(f"the node did not do it, and did not say why. `{look}` shows how things are.")


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


async def change_members(
    endpoints: Sequence[Address], body: Mapping[str, object], *, dry_run: bool, force: bool
) -> tuple[Address, NodeStatus, Verdict]:
    """Have the first node that answers get a change decided; returns that node, its status before, and its verdict.

    Raises CommandError, OutcomeUnknown, Interrupted.
    """
    address, status = await find_node(endpoints)
    look = command_line("member list", endpoints)
    try:
        verdict = await ask(address, "/members", {**body, "dry_run": dry_run, "force": force, "expected": 0}, look)
    except asyncio.CancelledError:
        if dry_run:
            raise
        raise Interrupted(
            f"interrupted before {address} had answered: the change may have been decided, or may yet be. "
            f"Look with `{look}` before you try again."
        ) from None
    check_verdict(verdict, dry_run=dry_run, force=force, look=look)
    return address, status, verdict


class Settling:
    """Follows a decided change until every group has it, on whichever member answers."""

    def __init__(self, address: Address, status: NodeStatus, version: int) -> None:
        """`status` is of the node at `address`, from before the change."""
        self.version = version
        """That was decided."""
        self.latest: Members | None = None
        """What a node said last."""
        self._addresses = [address]
        self._learn(status.members)
        self._names = {str(group.group): group.service for group in status.groups}
        self._told: dict[str, int] = {}
        """Groups that are said to have settled, and at which version."""

    async def wait(self, complete: Callable[[Members], bool], timeout_s: float) -> Members | None:
        """The members once all groups have settled and they are `complete`; None after the time."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        progress = ProgressLine(sys.stderr)
        try:
            while True:
                members = await self._ask()
                if members is not None and members.version >= self.version:
                    progress.clear()
                    self._tell(members)
                    if not members.under_way and complete(members):
                        return members
                if loop.time() >= deadline_s:
                    return None
                progress.show(self.waiting_for)
                await asyncio.sleep(POLL_S)
        finally:
            progress.clear()

    def waiting_for(self) -> str:
        """What is not done yet, for people."""
        latest = self.latest
        if latest is None or latest.version < self.version:
            return "no node answers that knows of the change"
        parts = [
            f"group {self._name(group)} is at version {version} of {latest.version}"
            for group, version in latest.under_way.items()
        ]
        parts += [f"node {m.node} has not come yet" for m in latest.members if not m.incarnation]
        parts += [f"node {m.node} is not connected" for m in latest.members if m.incarnation and not m.connected]
        return "; ".join(parts) or f"the members are at version {latest.version}"

    def _name(self, group: str) -> str:
        return self._names.get(group, group)

    def _tell(self, members: Members) -> None:
        """Say which groups have settled since the last time."""
        for group in self._names:
            if group not in members.under_way and self._told.get(group) != members.version:
                self._told[group] = members.version
                click.echo(f"group {self._name(group)}: settled at version {members.version}")

    async def _ask(self) -> Members | None:
        """From the first node that answers; one that does not is asked last from then on."""
        for address in list(self._addresses):
            try:
                members = await fetch_members(address, POLL_TIMEOUT_S)
            except NoAnswer:
                self._addresses.remove(address)
                self._addresses.append(address)
                continue
            self.latest = members
            self._learn(members.members)
            return members
        return None

    def _learn(self, members: Sequence[MemberStatus]) -> None:
        for member in members:
            try:
                address = admin_of(member)
            except ValueError:
                continue
            if address is not None and address not in self._addresses:
                self._addresses.append(address)
