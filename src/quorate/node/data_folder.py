"""A node's data folder at start: whose it is, what it runs on, and what its log holds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from quorate.consensus.records import Recovered
from quorate.node.config import NodeConfig
from quorate.node.protocols import protocol_text, protocols_in, protocols_of
from quorate.node.snapshotting import DamagedData
from quorate.storage.disk import Disk
from quorate.storage.identity import Identity, IdentityMismatch
from quorate.storage.log import Log

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OpenFolder:
    """A folder in use by its node."""

    identity: Identity
    log: Log
    recovered: Mapping[int, Recovered]
    """Group -> what its records come to."""
    protocols: Mapping[str, str]
    """Service -> what its group runs on."""


def open_folder(
    disk: Disk, config: NodeConfig, services: Iterable[str], new_incarnation: Callable[[], str]
) -> OpenFolder:
    """Open the folder, or make an empty one that of this node.

    Raises IdentityMismatch, before anything is written, where the settings do not fit the
    folder; DamagedData, DamagedIdentity, CorruptLog, UnknownLogFormat, LogSyncFailed, OSError.
    """
    known = Identity.load(disk)
    if known is not None:
        known.check(config.cluster, config.node)
    protocols = _protocols_for(known, config.protocol, services)
    log, recovery = Log.open(disk, segment_bytes=config.storage.segment_bytes)
    if known is not None and recovery.fresh:
        raise DamagedData("this data folder has been in use, but its log is gone: what the node voted is forgotten")
    if known is None and recovery.groups:
        raise DamagedData("the log belongs to a node, but its identity is gone: of which cluster it is, nobody knows")
    # Only now, so that a first start which is cut short leaves no identity without a log.
    identity = Identity.open(disk, config.cluster, config.node, new_incarnation(), protocol_text(protocols))
    if recovery.torn is not None:
        torn = recovery.torn
        _log.warning("cut a torn tail of %d bytes from %s at offset %d", torn.bytes_cut, torn.file, torn.offset)
    return OpenFolder(identity, log, recovery.groups, protocols)


def _protocols_for(identity: Identity | None, wanted: str | None, services: Iterable[str]) -> dict[str, str]:
    """Service -> protocol on a node with this data folder, whose settings say what `protocols_of` takes.

    A cluster keeps what it was made with, be that what the settings say, or left out there.
    Raises IdentityMismatch where they say something else.  Of services that the folder's
    cluster does not have, or not any more, nothing is said here.
    """
    chosen = protocols_of(wanted, services)
    if identity is None or not identity.cluster_id:
        return chosen
    made_with = protocols_in(identity.protocol, chosen)
    if wanted is not None and any(chosen[service] != name for service, name in made_with.items()):
        raise IdentityMismatch(
            f"the cluster of this data folder was made with the protocol {identity.protocol}, these settings say "
            f'{protocol_text(chosen)}, and a cluster keeps its protocol for good: set protocol = "{identity.protocol}"'
        )
    return chosen | made_with
