"""Whose data folder this is, and what it remembers of the cluster that it belongs to.

A member is bound to its data folder by an *incarnation*, a random number drawn when the
folder was first used.  A node that comes back under its old id with an empty folder has
another incarnation: it has forgotten what it voted, and its vote must not count.

A folder is bound to a cluster by the *cluster id*.  First members compute it from the
incarnations of all of them, once they have met; later ones are told.  docs/membership.md
has the whole story.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Final, Self

import msgspec
from google_crc32c import value

from quorate.consensus.replica import NodeId
from quorate.storage.disk import Disk
from quorate.storage.moves import UNFINISHED, DamagedMoves, Purpose, replace_file, unfinished_moves

FILE_NAME: Final = "identity.json"
FORMAT_VERSION: Final = 3
FORMAT_WITHOUT_PROTOCOL: Final = 2
"""Of a time when there was one protocol only."""
FIRST_PROTOCOL: Final = "raft"
"""That one."""
_HEX_128: Final = re.compile(r"[0-9a-f]{32}")


def is_incarnation(text: str) -> bool:
    return _HEX_128.fullmatch(text) is not None


def is_cluster_id(text: str) -> bool:
    return _HEX_128.fullmatch(text) is not None


def cluster_id_of(cluster: str, formation: Mapping[NodeId, str]) -> str:
    """The id of the cluster of this name that these first members, node to incarnation, form: 32 hex digits."""
    return sha256(msgspec.json.encode((cluster, sorted(formation.items())))).hexdigest()[:32]


class DamagedIdentity(Exception):
    """The identity file cannot be read back as it was written, or the folder was being set aside as damaged."""


class IdentityMismatch(Exception):
    """The data folder belongs to another node or cluster, or to another version of Quorate."""


class UnfinishedRecovery(IdentityMismatch):
    """A recovery was interrupted: the folder is neither the old cluster's any more nor the new one's yet."""

    def __init__(self, folder: str) -> None:
        super().__init__(
            "a recovery of this data folder was interrupted: run the same `quorate recover` or "
            f"`quorate snapshot restore` again, which finishes it (what was there before is in {folder}/)"
        )


def check_finished(disk: Disk) -> None:
    """Raises UnfinishedRecovery or DamagedIdentity where a crash interrupted a move of the folder's state."""
    try:
        moves = unfinished_moves(disk)
    except DamagedMoves as error:
        raise DamagedIdentity(str(error)) from error
    if moves is not None:
        if moves.purpose is Purpose.START_OVER:
            raise UnfinishedRecovery(moves.folder)
        raise DamagedIdentity(f"{UNFINISHED}: the data was being moved to {moves.folder}/: {moves.why}")


class _FirstContent(msgspec.Struct, frozen=True):
    """As of `FORMAT_WITHOUT_PROTOCOL`."""

    format: int
    cluster: str
    cluster_id: str
    node: int
    incarnation: str
    formation: dict[int, str] = {}
    met: dict[int, str] = {}
    addresses: dict[int, str] = {}
    voters: list[int] = []
    recovered_from: str = ""


class _Content(_FirstContent, frozen=True):
    protocol: str = FIRST_PROTOCOL


class _File(msgspec.Struct, frozen=True):
    crc32c: int
    identity: msgspec.Raw


class _Version(msgspec.Struct, frozen=True):
    format: int


class Identity:
    """The identity file of a data folder, kept up to date on disk.

    Every method that changes it returns once the change is durable, and raises OSError
    where it cannot be made: nothing has changed then.
    """

    def __init__(self, disk: Disk, content: _Content) -> None:
        """Use `Identity.open`, `load` or `create`."""
        self._disk = disk
        self._content = content

    @classmethod
    def open(cls, disk: Disk, cluster: str, node: NodeId, new_incarnation: str, protocol: str) -> Self:
        """The folder's identity, created where the folder has none yet.

        `new_incarnation` is 128 random bits as 32 hexadecimal digits, used for a new
        folder only.  `protocol` is remembered while the folder belongs to no cluster; after
        that it stays.  Raises IdentityMismatch, DamagedIdentity, OSError.
        """
        identity = cls.load(disk)
        if identity is None:
            return cls.create(disk, cluster, node, new_incarnation, protocol)
        identity.check(cluster, node)
        if not identity.cluster_id:
            identity._change(msgspec.structs.replace(identity._content, protocol=protocol))
        return identity

    @classmethod
    def load(cls, disk: Disk) -> Self | None:
        """None where the folder has no identity yet: the first question to ask of a data folder.

        Raises IdentityMismatch, UnfinishedRecovery, DamagedIdentity (set the folder aside then), OSError.
        """
        check_finished(disk)
        if not disk.exists(FILE_NAME):
            return None
        return cls(disk, _decode(disk.read(FILE_NAME)))

    @classmethod
    def create(
        cls,
        disk: Disk,
        cluster: str,
        node: NodeId,
        incarnation: str,
        protocol: str,
        *,
        cluster_id: str = "",
        formation: Mapping[NodeId, str] | None = None,
        recovered_from: str = "",
        path: str = FILE_NAME,
    ) -> Self:
        """Give the folder an identity, durably.  Raises OSError.

        Another `path` than the default is for a file that is to be moved into its place.
        """
        if not is_incarnation(incarnation):
            raise ValueError(f"an incarnation is 32 hexadecimal digits, not {incarnation!r}")
        for text in (cluster_id, recovered_from):
            if text:
                _check_cluster_id(text)
        content = _Content(
            FORMAT_VERSION,
            cluster,
            cluster_id,
            node,
            incarnation,
            formation=_in_order(formation or {}),
            recovered_from=recovered_from,
            protocol=protocol,
        )
        _save(disk, content, path)
        return cls(disk, content)

    def check(self, cluster: str, node: NodeId) -> None:
        """Whether the folder is that of this node.  Raises IdentityMismatch."""
        content = self._content
        if content.cluster != cluster:
            raise IdentityMismatch(f"the data folder belongs to cluster {content.cluster!r}, not {cluster!r}")
        if content.node != node:
            raise IdentityMismatch(f"the data folder belongs to node {content.node}, not node {node}")

    @property
    def cluster(self) -> str:
        """Its name."""
        return self._content.cluster

    @property
    def cluster_id(self) -> str:
        """Empty until the node is a member."""
        return self._content.cluster_id

    @property
    def node(self) -> NodeId:
        return self._content.node

    @property
    def incarnation(self) -> str:
        return self._content.incarnation

    @property
    def formation(self) -> Mapping[NodeId, str]:
        """All first members with their incarnations; empty unless this node was one of them."""
        return self._content.formation

    @property
    def met(self) -> Mapping[NodeId, str]:
        """While the cluster forms: the first members met so far, with their incarnations."""
        return self._content.met

    @property
    def addresses(self) -> Mapping[NodeId, str]:
        """Where the members' peer listeners were last, "host:port": a hint for the next start."""
        return self._content.addresses

    @property
    def protocol(self) -> str:
        """Which one each group runs on (`node.protocols.protocol_text`); for good once the node is a member."""
        return self._content.protocol

    @property
    def recovered_from(self) -> str:
        """The id of the cluster out of which `quorate recover` made this one; empty where it did not."""
        return self._content.recovered_from

    def meet(self, peer: NodeId, incarnation: str) -> None:
        """Remember a first member, instead of what was known of it."""
        assert not self.cluster_id, "who is a member has no others to meet"
        self._change(self._replaced(met={**self._content.met, peer: incarnation}))

    def form(self, cluster_id: str, formation: Mapping[NodeId, str]) -> None:
        """All first members have met."""
        assert self.cluster_id in ("", cluster_id), "a folder belongs to one cluster for ever"
        _check_cluster_id(cluster_id)
        self._change(self._replaced(cluster_id=cluster_id, formation=formation, met={}))

    def join(self, cluster_id: str) -> None:
        """A member let this node in."""
        assert self.cluster_id in ("", cluster_id), "a folder belongs to one cluster for ever"
        _check_cluster_id(cluster_id)
        self._change(self._replaced(cluster_id=cluster_id, met={}))

    @property
    def voters(self) -> Sequence[NodeId]:
        """Which of the members voted last, as far as this node knew."""
        return self._content.voters

    def remember_members(self, addresses: Mapping[NodeId, str], voters: Iterable[NodeId]) -> None:
        """These are all the members' addresses now, and those that vote."""
        content = self._replaced(addresses=addresses)
        self._change(msgspec.structs.replace(content, voters=sorted(voters)))

    def _replaced(
        self,
        *,
        cluster_id: str | None = None,
        formation: Mapping[NodeId, str] | None = None,
        met: Mapping[NodeId, str] | None = None,
        addresses: Mapping[NodeId, str] | None = None,
    ) -> _Content:
        content = self._content
        return msgspec.structs.replace(
            content,
            cluster_id=content.cluster_id if cluster_id is None else cluster_id,
            formation=content.formation if formation is None else _in_order(formation),
            met=content.met if met is None else _in_order(met),
            addresses=content.addresses if addresses is None else _in_order(addresses),
        )

    def _change(self, content: _Content) -> None:
        if content != self._content:
            _save(self._disk, content, FILE_NAME)
            self._content = content


def read_identity(disk: Disk, path: str) -> Identity:
    """An identity file wherever it lies, to be looked at.  Raises DamagedIdentity, IdentityMismatch, OSError."""
    return Identity(disk, _decode(disk.read(path)))


def _in_order(mapping: Mapping[NodeId, str]) -> dict[NodeId, str]:
    return dict(sorted(mapping.items()))


def _check_cluster_id(text: str) -> None:
    if not is_cluster_id(text):
        raise ValueError(f"a cluster id is 32 hexadecimal digits, not {text!r}")


def _save(disk: Disk, content: _Content, path: str) -> None:
    encoded = msgspec.json.encode(content)
    data = msgspec.json.format(msgspec.json.encode(_File(value(encoded), msgspec.Raw(encoded)))) + b"\n"
    replace_file(disk, path, data)


def _decode(data: bytes) -> _Content:
    try:
        file = msgspec.json.decode(data, type=_File)
        version = msgspec.json.decode(file.identity, type=_Version).format
        if version not in (FORMAT_WITHOUT_PROTOCOL, FORMAT_VERSION):
            raise IdentityMismatch(
                f"{FILE_NAME} has format {version}; this version of Quorate reads formats "
                f"{FORMAT_WITHOUT_PROTOCOL} and {FORMAT_VERSION}"
            )
        shape = _FirstContent if version == FORMAT_WITHOUT_PROTOCOL else _Content
        content = msgspec.json.decode(file.identity, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedIdentity(f"{FILE_NAME} is damaged: {error}") from error
    # White space is not part of the content: the file is laid out for people.
    if value(msgspec.json.encode(content)) != file.crc32c:
        raise DamagedIdentity(f"{FILE_NAME} is damaged: its checksum is wrong (was it edited?)")
    if not isinstance(content, _Content):
        content = _Content(**{**msgspec.structs.asdict(content), "format": FORMAT_VERSION})
    return content
