"""Who the members are and where: every door tells the others where its clients and its peers reach it.

Who is a member is decided in the log; where a member's door listens is known to that node alone, and changes when it is
started with other settings.  So each door announces itself, again and again because notes may be lost, and at once to
a door that it hears from for the first time.  A member that no announcement came from yet has no URLs.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from quorate.consensus.replica import NodeId
from quorate.services.etcd.etcd_pb2 import Member
from quorate.services.etcd.header import member_number
from quorate.services.interface import DoorConfig, Group

NOTE: Final = b"m"
"""First byte of an announcement; notes of leases begin with other ones."""
INTERVAL_MS: Final = 2_000


class Announcement(msgspec.Struct, frozen=True, array_like=True):
    """Where a member is reached."""

    client_urls: tuple[str, ...]
    peer_urls: tuple[str, ...]


_decoder: Final = msgspec.msgpack.Decoder(Announcement)


class Members:
    """The members of the group, as this door knows them."""

    def __init__(self, group: Group, config: DoorConfig, scheme: str) -> None:
        self._group = group
        self._cluster_id = config.cluster_id
        self._config = config
        self._scheme = scheme
        self._known: dict[NodeId, Announcement] = {}
        self._next_ms = 0

    def open(self, port: int) -> None:
        """This door listens, on `port`, and may be announced."""
        host = self._config.reachable_host or self._config.host
        client_url = f"{self._scheme}://[{host}]:{port}" if ":" in host else f"{self._scheme}://{host}:{port}"
        peer_urls = (f"http://{self._config.peer}",) if self._config.peer else ()
        self._known[self._group.node_id] = Announcement((client_url,), peer_urls)
        self.announce()

    def number(self, node: NodeId) -> int:
        """The member's id, as clients know it."""
        return member_number(self._cluster_id, node)

    def announce(self) -> None:
        """To all members, as far as they can be reached."""
        own = self._group.node_id
        if own not in self._known:
            return
        for node in _nodes(self._group.describe()):
            if node != own:
                self._tell(node)

    def _tell(self, node: NodeId) -> None:
        own = self._known.get(self._group.node_id)
        if own is not None:
            self._group.tell(node, NOTE + msgspec.msgpack.encode(own))

    def hear(self, sender: NodeId, note: bytes) -> None:
        """Raises ValueError where the note is no announcement."""
        try:
            announcement = _decoder.decode(memoryview(note)[len(NOTE) :])
        except msgspec.MsgspecError as error:
            raise ValueError(f"not an announcement of a member: {error}") from error
        if self._known.get(sender) != announcement:
            self._known[sender] = announcement
            # It has just started, or is new: it may not know this one.
            self._tell(sender)

    def tick(self, now_ms: int) -> None:
        if now_ms >= self._next_ms:
            self._next_ms = now_ms + INTERVAL_MS
            self.announce()

    def messages(self) -> list[Member]:
        """In the order of their ids, as etcd has them."""
        described = self._group.describe()
        learners = described["learners"]
        unknown = Announcement((), ())
        found = [
            Member(
                ID=self.number(node),
                name=f"node-{node}",
                peerURLs=self._known.get(node, unknown).peer_urls,
                clientURLs=self._known.get(node, unknown).client_urls,
                isLearner=node in learners,
            )
            for node in _nodes(described)
        ]
        return sorted(found, key=lambda member: member.ID)


def _nodes(described: dict[str, Any]) -> list[NodeId]:
    """All members of the group; while the members change, those of before and after."""
    return sorted({*described["voters"], *described["old_voters"], *described["learners"]})
