"""What people may ask a node to do: change the members, hand a leadership over, give a backup.

    POST /members    {"change": "add" | "promote" | "remove" | "replace", "node": 3, "address": "host:port",
                      "new_node": 4, "dry_run": false, "force": false, "expected": 0}
    POST /transfer   {"service": "zookeeper" | "etcd" | "cluster" | null, "node": 2 | null, "dry_run": false}
    GET  /backup     a backup of all groups (`storage.backup`)
    POST /snapshot   start a snapshot of every group

A change is judged first (`services.cluster.plan`): what it would do to the quorum is said,
and what would lose it is refused unless it is forced.  The answer comes once the change is
decided; the groups follow it afterwards, which `GET /members` shows.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from quorate import __version__
from quorate.net.handshake import HandshakeRefused, LocalIdentity, Portrait
from quorate.net.probe import probe
from quorate.node.admin import Answer, BadRequest, Body, Handler, Route, Stream, json_answer
from quorate.node.config import WILDCARD_HOSTS, parse_address
from quorate.node.group import ReplicatedGroup
from quorate.node.protocols import why_members_stay
from quorate.services.cluster.commands import NOBODY, Add, Promote, Remove
from quorate.services.cluster.door import ChangeRefused, OutcomeUnknown
from quorate.services.cluster.plan import Transfer, Verdict, judge
from quorate.storage.backup import BackupEncoder, BackupHeader
from quorate.storage.snapshots import SnapshotInfo

if TYPE_CHECKING:
    from quorate.node.node import Node

PROBE_TIMEOUT_S: Final = 2.0
PATIENCE_S: Final = 10.0
BARRIER_TIMEOUT_S: Final = 10.0
SNAPSHOT_TIMEOUT_S: Final = 600.0


class _ChangeRequest(msgspec.Struct, forbid_unknown_fields=True):
    change: str
    node: int
    address: str = ""
    new_node: int = NOBODY
    dry_run: bool = False
    force: bool = False
    expected: int = 0


class _TransferRequest(msgspec.Struct, forbid_unknown_fields=True):
    service: str | None = None
    node: int | None = None
    dry_run: bool = False


_Request = TypeVar("_Request")


class Operations:
    """The handlers, for the admin listener of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def pages(self) -> dict[Route, Handler]:
        return {
            ("POST", "/members"): self._change_members,
            ("POST", "/transfer"): self._transfer,
            ("GET", "/backup"): self._backup,
            ("POST", "/snapshot"): lambda _: json_answer(self._node.start_snapshots()),
            ("POST", "/reset-longest-stop"): lambda _: json_answer(self._node.reset_longest_stop()),
        }

    # --- members -----------------------------------------------------------------------------

    async def _change_members(self, body: Body) -> Answer:
        request = _read(body, _ChangeRequest)
        change = _change(request)
        node = self._node
        if node.cluster_door is None:
            return _refused("this node is no member of a cluster yet", HTTPStatus.SERVICE_UNAVAILABLE)
        if (fixed := why_members_stay(node.local_identity().protocol)) is not None:
            return _refused(fixed)
        await self._first_moment()
        verdict = await self._judge(change, patient=not (request.dry_run or request.force))
        refusal = verdict.refusal(request.force)
        # What was judged is what is decided: had the members changed meanwhile, it might cost something else.
        change = msgspec.structs.replace(change, expected=change.expected or node.members.version)
        lines = list(verdict.lines)
        if refusal is None and isinstance(change, Add):
            refusal, more = await self._look_at_newcomer(change)
            lines += more
        done, version, unknown = False, node.members.version, False
        if refusal is None and not request.dry_run:
            try:
                outcome = await node.cluster_door.submit(change)
                refusal, version, done = outcome.problem, outcome.version, outcome.problem is None
            except (ChangeRefused, OutcomeUnknown) as error:
                refusal, unknown = str(error), True
        status = HTTPStatus.SERVICE_UNAVAILABLE if unknown else HTTPStatus.OK
        return _said(verdict, done, version, lines, refusal, status)

    async def _first_moment(self) -> None:
        """A cluster that was formed a moment ago has yet to write its first list of members."""
        deadline_s = asyncio.get_running_loop().time() + PATIENCE_S
        while not self._node.members.version and asyncio.get_running_loop().time() < deadline_s:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    async def _judge(self, change: Add | Promote | Remove, *, patient: bool) -> Verdict:
        """What soon passes by itself is waited for: an earlier change, a learner that is only just coming."""
        node = self._node
        deadline_s = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            verdict = judge(node.members, change, node.neighbours.alive(), node.neighbours.lags())
            if verdict.refusal(forced=False) is None or not patient or asyncio.get_running_loop().time() > deadline_s:
                return verdict
            member = node.members.member(change.node)
            comes = isinstance(change, Promote) and member is not None and not member.voter
            if not comes and not node.members.under_way():
                return verdict
            await asyncio.sleep(0.1)

    async def _look_at_newcomer(self, change: Add) -> tuple[str | None, list[str]]:
        """Who listens at the new address: (why the change is refused, what to say)."""
        local = self._node.local_identity()
        try:
            portrait = await probe(_endpoint(change.address), local, PROBE_TIMEOUT_S)
        except HandshakeRefused as error:
            return f"what listens at {change.address} cannot be added: {error}", []
        except (OSError, TimeoutError) as error:
            why = str(error) or "no answer"
            return None, [f"note: nothing answers at {change.address} yet ({why}): start node {change.node} there"]
        return _objection(portrait, change, local), []

    # --- leadership --------------------------------------------------------------------------

    async def _transfer(self, body: Body) -> Answer:
        request = _read(body, _TransferRequest)
        node = self._node
        groups = [group for group in node.groups() if request.service in (None, group.service_name)]
        if not groups:
            known = ", ".join(group.service_name for group in node.groups()) or "none yet"
            return _refused(f"there is no service {request.service!r} on this node; there are {known}")
        led = [group for group in groups if group.leads()]
        if not led:
            leader = groups[0].leadership.leader
            admin = node.admin_of(leader) if leader is not None else ""
            return json_answer(
                {"problem": "this node does not lead", "leader": leader, "leader_admin": admin}, HTTPStatus.CONFLICT
            )
        target = request.node if request.node is not None else node.neighbours.best_successor(led[0])
        if target is None:
            return _refused("there is no other voter that could lead")
        if target == node.config.node:
            return _refused(f"node {target} leads already")
        verdict = judge(node.members, Transfer(target), node.neighbours.alive(), node.neighbours.lags())
        problem: str | None = verdict.problem
        lines = list(verdict.lines)
        if problem is None and not request.dry_run:
            for group in led:
                problem = problem or await node.hand_over(group, "request", "it was asked for", target)
                if problem is None:
                    lines.append(f"{group.service_name}: node {target} leads")
        done = problem is None and not request.dry_run
        return _said(verdict, done, node.members.version, lines, problem, HTTPStatus.OK)

    # --- backup ------------------------------------------------------------------------------

    async def _backup(self, body: Body) -> Answer | Stream:
        groups = self._node.groups()
        if not groups:
            return _refused("this node is no member of a cluster yet", HTTPStatus.SERVICE_UNAVAILABLE)
        for group in groups:
            if not await _has_everything(group):
                return _refused(
                    f"this node cannot tell whether it has everything: no leader of {group.service_name} answers it "
                    "(a cluster whose quorum is lost for good is for `quorate recover`)",
                    HTTPStatus.SERVICE_UNAVAILABLE,
                )
        async with asyncio.timeout(SNAPSHOT_TIMEOUT_S):
            infos = [await self._snapshot(group) for group in groups]
        return Stream("application/octet-stream", self._encode(infos))

    async def _snapshot(self, group: ReplicatedGroup) -> SnapshotInfo:
        """A snapshot of the group that is not older than this call."""
        position = group.applied_position
        while True:
            info = self._node.newest_snapshot(group)
            if info is not None and info.position >= position:
                return info
            self._node.start_snapshot(group)
            await asyncio.sleep(0.02)

    async def _encode(self, infos: list[SnapshotInfo]) -> AsyncIterator[bytes]:
        node, encoder = self._node, BackupEncoder()
        local = node.local_identity()
        header = BackupHeader(
            node.wall_ms(), __version__, local.cluster, local.cluster_id, local.protocol, node.members.content()
        )
        yield encoder.begin(header)
        for info in infos:
            file = node.open_snapshot(info)
            try:
                for chunk in encoder.snapshot(info, file):
                    yield chunk
            finally:
                file.close()
        yield encoder.finish()


async def _has_everything(group: ReplicatedGroup) -> bool:
    """Whether this node has applied all that was acknowledged anywhere before this call."""
    passed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    group.barrier(lambda done: None if passed.done() else passed.set_result(done))
    try:
        async with asyncio.timeout(BARRIER_TIMEOUT_S):
            return await passed
    except TimeoutError:
        return False


def _read(body: Body, shape: type[_Request]) -> _Request:
    try:
        return msgspec.convert(body or {}, shape)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error)) from error


def _change(request: _ChangeRequest) -> Add | Promote | Remove:
    if request.change in ("add", "replace") and not request.address:
        raise BadRequest(f'{request.change} needs "address": "host:port", where the other nodes reach the new one')
    match request.change:
        case "add":
            return Add(request.expected, request.node, request.address)
        case "replace" if request.new_node == NOBODY:
            raise BadRequest('replace needs "new_node"')
        case "replace":
            return Add(request.expected, request.new_node, request.address, replaces=request.node)
        case "promote":
            return Promote(request.expected, request.node)
        case "remove":
            return Remove(request.expected, request.node)
    raise BadRequest(f'"change" is {request.change!r}; it must be add, promote, remove or replace')


def _endpoint(address: str) -> tuple[str, int]:
    parsed = parse_address(address)
    if parsed.host in WILDCARD_HOSTS:
        raise BadRequest(f"{address}: must be an address that the other nodes can connect to")
    return parsed.host, parsed.port


def _objection(portrait: Portrait, change: Add, local: LocalIdentity) -> str | None:
    where = f"the node at {change.address}"
    if portrait.cluster != local.cluster:
        return f"{where} belongs to cluster {portrait.cluster!r}, not to {local.cluster!r}"
    if portrait.cluster_id and portrait.cluster_id != local.cluster_id:
        return (
            f"{where} belongs to another cluster, with id {portrait.cluster_id[:8]} instead of {local.cluster_id[:8]}"
        )
    if portrait.node != change.node:
        return f"{where} is node {portrait.node}, not node {change.node}"
    if portrait.services != local.services:
        services = json.dumps(local.services)
        return f"{where} serves {' and '.join(portrait.services)}: set services = {services} in its settings"
    if portrait.protocol != local.protocol:
        return f'{where} runs the protocol {portrait.protocol}: set protocol = "{local.protocol}" in its settings'
    if portrait.cluster_id:
        return f"{where} has data of this cluster from an earlier membership: give it an empty folder"
    return None


def _said(
    verdict: Verdict, done: bool, version: int, lines: list[str], problem: str | None, status: HTTPStatus
) -> Answer:
    return json_answer(
        {
            "done": done,
            "version": version,
            "lines": lines,
            "problem": problem if problem != verdict.danger else None,
            "danger": verdict.danger,
            "before": verdict.before,
            "after": verdict.after,
        },
        status,
    )


def _refused(problem: str, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    return json_answer({"done": False, "version": 0, "lines": [], "problem": problem, "danger": None}, status)
