"""Whose data folder this is, and which data folders its peers came with.

A member is bound to its data folder by an *incarnation*, a random number drawn when the
folder was first used.  A node that comes back under its old id with an empty folder has
another incarnation: it has forgotten what it voted, and its peers must not count its vote.
"""

from __future__ import annotations

import re
from typing import Final, Self

import msgspec
from google_crc32c import value

from quorate.consensus.replica import NodeId
from quorate.storage.disk import Disk

FILE_NAME: Final = "identity.json"
FORMAT_VERSION: Final = 1
_INCARNATION: Final = re.compile(r"[0-9a-f]{32}")


def is_incarnation(text: str) -> bool:
    return _INCARNATION.fullmatch(text) is not None


class DamagedIdentity(Exception):
    """The identity file cannot be read back as it was written."""


class IdentityMismatch(Exception):
    """The data folder belongs to another node or cluster, or to a newer version of Quorate."""


class _Content(msgspec.Struct, frozen=True):
    format: int
    cluster: str
    node: int
    incarnation: str
    peers: dict[int, str]


class _File(msgspec.Struct, frozen=True):
    crc32c: int
    identity: msgspec.Raw


class _Version(msgspec.Struct, frozen=True):
    format: int


class Identity:
    """The identity file of a data folder, kept up to date on disk."""

    def __init__(self, disk: Disk, content: _Content) -> None:
        """Use `Identity.open`, `load` or `create`."""
        self._disk = disk
        self._content = content

    @classmethod
    def open(cls, disk: Disk, cluster: str, node: NodeId, new_incarnation: str) -> Self:
        """The folder's identity, created where the folder has none yet.

        `new_incarnation` is 128 random bits as 32 hexadecimal digits, used for a new
        folder only.  Raises IdentityMismatch, DamagedIdentity, OSError.
        """
        identity = cls.load(disk)
        if identity is None:
            return cls.create(disk, cluster, node, new_incarnation)
        content = identity._content
        if content.cluster != cluster:
            raise IdentityMismatch(f"the data folder belongs to cluster {content.cluster!r}, not {cluster!r}")
        if content.node != node:
            raise IdentityMismatch(f"the data folder belongs to node {content.node}, not node {node}")
        return identity

    @classmethod
    def load(cls, disk: Disk) -> Self | None:
        """None where the folder has no identity yet.  Raises IdentityMismatch, DamagedIdentity, OSError."""
        if not disk.exists(FILE_NAME):
            return None
        return cls(disk, _decode(disk.read(FILE_NAME)))

    @classmethod
    def create(cls, disk: Disk, cluster: str, node: NodeId, incarnation: str) -> Self:
        """Give the folder an identity, durably.  Raises OSError."""
        if not is_incarnation(incarnation):
            raise ValueError(f"an incarnation is 32 hexadecimal digits, not {incarnation!r}")
        content = _Content(FORMAT_VERSION, cluster, node, incarnation, {})
        _save(disk, content)
        return cls(disk, content)

    @property
    def cluster(self) -> str:
        return self._content.cluster

    @property
    def node(self) -> NodeId:
        return self._content.node

    @property
    def incarnation(self) -> str:
        return self._content.incarnation

    def known_peer(self, peer: NodeId) -> str | None:
        """The incarnation that the peer came with first."""
        return self._content.peers.get(peer)

    def remember_peer(self, peer: NodeId, incarnation: str) -> None:
        """Remember it durably, instead of what was known.  Raises OSError: it is not known then."""
        peers = {**self._content.peers, peer: incarnation}
        content = msgspec.structs.replace(self._content, peers=peers)
        _save(self._disk, content)
        self._content = content


def _save(disk: Disk, content: _Content) -> None:
    encoded = msgspec.json.encode(content)
    data = msgspec.json.format(msgspec.json.encode(_File(value(encoded), msgspec.Raw(encoded)))) + b"\n"
    partial = f"{FILE_NAME}.partial"
    file = disk.open(partial, create=True)
    try:
        file.truncate(0)
        file.write_at(0, data)
        file.sync()
    finally:
        file.close()
    disk.rename(partial, FILE_NAME)
    disk.sync_folder("")


def _decode(data: bytes) -> _Content:
    try:
        file = msgspec.json.decode(data, type=_File)
        version = msgspec.json.decode(file.identity, type=_Version).format
        if version != FORMAT_VERSION:
            raise IdentityMismatch(
                f"{FILE_NAME} has format {version}; this version of Quorate reads format {FORMAT_VERSION}"
            )
        content = msgspec.json.decode(file.identity, type=_Content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedIdentity(f"{FILE_NAME} is damaged: {error}") from error
    # White space is not part of the content: the file is laid out for people.
    if value(msgspec.json.encode(content)) != file.crc32c:
        raise DamagedIdentity(f"{FILE_NAME} is damaged: its checksum is wrong (was it edited?)")
    return content
