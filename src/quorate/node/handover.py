"""Handing a group's leadership over, so that no client notices.

    leader      Hold(generation) to every connected peer; keeps its own new commands back too
    followers   forward nothing more; Held once all that they had forwarded is answered
    leader      TransferLeadership: its log is complete at the target, which stands at once
    everybody   another leadership begins: what was held goes to the new leader

A peer that stops says so (`Stopping`), and takes no leadership any more.  Where it was to
have this one, another gets it; where all the others stop too, or are not connected, it
stays, so that the end of a whole cluster waits for nobody.

So nothing is in doubt when the leadership changes, no command is refused and no
connection is closed for it.  None of this is needed for safety, so nothing of it is waited
for long: a peer that does not answer, or a disk that hangs, costs `HOLD_PATIENCE_MS`, and
then what is under way is lost as with any other change of leaders.
"""

from __future__ import annotations

import asyncio
import logging

from quorate.consensus.replica import NodeId, TransferLeadership
from quorate.net.links import Links
from quorate.node.group import ReplicatedGroup
from quorate.node.ports import GroupHost
from quorate.node.wire import Hold, HoldEnded

_log = logging.getLogger(__name__)

HOLD_PATIENCE_MS = 250
TRANSFER_MARGIN_MS = 250
"""How much longer than the replica, which gives up after an election timeout, the node waits for the outcome."""
LOOK_AGAIN_S = 0.002
NOBODY_STAYS = "every other voter stops too, or is not connected"


async def hand_over(
    group: ReplicatedGroup, host: GroupHost, links: Links, reason: str, target: NodeId | None, limit_ms: int
) -> str | None:
    """Hand the leadership to `target`, None for the best voter.  Returns why not, None where another leads now.

    `limit_ms` is the longest election timeout.  The target is one of the group's voters.
    """
    if not group.leads():
        return "this node does not lead the group"
    if group.handing_over:
        return "the leadership is being handed over already"
    group.handing_over = True
    try:
        return await _hand_over(group, host, links, reason, target, limit_ms)
    finally:
        group.handing_over = False


async def _hand_over(
    group: ReplicatedGroup, host: GroupHost, links: Links, reason: str, target: NodeId | None, limit_ms: int
) -> str | None:
    generation = group.leadership.generation
    began_ms = host.now_ms()
    peers = [peer for peer, link in links.by_peer.items() if link.connected]
    group.held.clear()
    group.proposals.hold()
    for peer in peers:
        host.send(group.group_id, peer, Hold(generation))
    host.schedule()
    while host.now_ms() < began_ms + HOLD_PATIENCE_MS and group.leadership.generation == generation:
        if group.proposals.is_idle() and all(peer in group.held or not _stays(links, peer) for peer in peers):
            break
        if not _staying(group, links):
            break
        await asyncio.sleep(LOOK_AGAIN_S)
    problem = await _transfer(group, host, links, target, generation, limit_ms)
    if problem is None:
        _log.info(
            "group %d (%s): handed the leadership over to node %s in %d ms (%s)",
            group.group_id,
            group.service_name,
            group.leadership.leader,
            host.now_ms() - began_ms,
            reason,
        )
        return None
    level = logging.INFO if problem == NOBODY_STAYS else logging.WARNING
    _log.log(level, "group %d (%s): the leadership stays here: %s", group.group_id, group.service_name, problem)
    group.proposals.go_on()
    for peer in peers:
        host.send(group.group_id, peer, HoldEnded(generation))
    host.schedule()
    return problem


async def _transfer(
    group: ReplicatedGroup, host: GroupHost, links: Links, target: NodeId | None, generation: int, limit_ms: int
) -> str | None:
    successor: NodeId | None = None
    deadline_ms = host.now_ms() + limit_ms + TRANSFER_MARGIN_MS
    while host.now_ms() < deadline_ms:
        leadership = group.leadership
        if leadership.generation != generation and leadership.leader not in (None, group.node_id):
            return None
        if leadership.leader == group.node_id and leadership.generation != generation:
            return "this node was elected again"
        staying = _staying(group, links)
        if not staying:
            return NOBODY_STAYS
        if leadership.generation == generation and successor not in staying:
            gone = tuple(voter for voter in group.replica.configuration().voters if voter not in staying)
            if target in gone and target != group.node_id:
                return f"node {target} stops, or is not connected"
            effects = host.step(group.group_id, TransferLeadership(target, avoid=gone))
            if effects.refused is not None:
                return effects.refused.value
            successor = group.replica.status().successor
        await asyncio.sleep(LOOK_AGAIN_S)
    return "the target did not take the leadership in time"


def _staying(group: ReplicatedGroup, links: Links) -> list[NodeId]:
    """The other voters that could lead."""
    return [voter for voter in group.replica.configuration().voters if _stays(links, voter)]


def _stays(links: Links, peer: NodeId) -> bool:
    link = links.by_peer.get(peer)
    return link is not None and link.stays()
