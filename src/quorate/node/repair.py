"""A node whose data folder is damaged begins anew, as one that has to be let in and refilled.

What is damaged may be what this node vouched for, so nothing of the folder is used again.
It is set aside, not deleted; the others see another incarnation come, make it a learner,
fill it, and let it vote again (docs/membership.md).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from quorate.consensus.records import InvalidState
from quorate.node.config import NodeConfig
from quorate.node.node import Node
from quorate.node.protocols import why_members_stay
from quorate.node.snapshotting import DamagedData
from quorate.storage.disk import Disk
from quorate.storage.identity import DamagedIdentity, Identity, IdentityMismatch
from quorate.storage.log_errors import CorruptLog
from quorate.storage.set_aside import set_aside
from quorate.storage.snapshots import CorruptSnapshot

_log = logging.getLogger(__name__)

DAMAGED = (CorruptLog, CorruptSnapshot, DamagedData, DamagedIdentity, InvalidState)


async def start_node(config: NodeConfig, disk: Disk, make: Callable[[NodeConfig], Node]) -> Node:
    """Make a node and start it; where its folder is damaged, set that aside and do so with an empty one.

    `make` gets the settings; where they leave the protocol out, that of the folder that was set aside stays.
    Raises what is damaged where this is the only voter, which nobody could refill; and
    whatever else `Node` and `Node.start` raise.
    """
    others = other_members(config, disk)
    refillable, begins_anew = can_be_refilled(config, disk), False
    identity = _identity(disk)
    while True:
        node: Node | None = None
        try:
            node = make(config)
            if begins_anew:
                node.remember_addresses(others)
            await node.start()
            return node
        except DAMAGED as error:
            if node is not None:
                await node.stop()
            if not refillable:
                raise
            folder, begins_anew = set_aside(disk, str(error)), True
            if identity is not None and config.protocol is None:
                config = replace(config, protocol=identity.protocol)
            _log.error(
                "damaged data: %s; it was set aside in %s, and this node begins anew: the others let it in as a "
                "learner, fill it, and have it vote again (docs/operations.md)",
                error,
                folder,
            )
        except BaseException:
            if node is not None:
                await node.stop()
            raise


def other_members(config: NodeConfig, disk: Disk) -> dict[int, str]:
    """Where the other members are: those that the folder last knew of, else those of the settings."""
    identity = _identity(disk)
    if identity is not None and identity.addresses:
        known = dict(identity.addresses)
    else:
        known = {node: str(address) for node, address in config.members.items()}
    known.pop(config.node, None)
    return known


def can_be_refilled(config: NodeConfig, disk: Disk) -> bool:
    """Whether other nodes vote, as far as the folder knows, else as the settings say, and may change the members."""
    identity = _identity(disk)
    voters = set(identity.voters) if identity is not None else set()
    protocol = identity.protocol if identity is not None and identity.cluster_id else config.protocol
    if protocol is not None and why_members_stay(protocol) is not None:
        return False
    return bool((voters or set(config.members)) - {config.node})


def _identity(disk: Disk) -> Identity | None:
    try:
        return Identity.load(disk)
    except (DamagedIdentity, IdentityMismatch):
        return None
