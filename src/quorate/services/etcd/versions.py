"""A version: what a key was from one revision on."""

from __future__ import annotations

from typing import Final

import msgspec

from quorate.services.etcd.encoding import varint

VERSION_OVERHEAD_BYTES: Final = 256
"""What a version is held to cost beside its key and value: etcd's estimate, and about what it takes in memory."""


class Version(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A change of one key; never changes itself.  With `version` 0 it is a tombstone: the key was deleted.

    Compared and hashed by its contents; no two of one store are alike but for a key that a transaction wrote twice.
    """

    key: bytes
    value: bytes
    create_revision: int
    """0 of a tombstone."""
    mod_revision: int
    """The revision of the change."""
    version: int
    """1 for the put that created the key, one more for each after it; 0 of a tombstone."""
    lease: int
    """Id, or 0 for none."""


def tombstone(key: bytes, revision: int) -> Version:
    return Version(key, b"", 0, revision, 0, 0)


def size_bytes(version: Version) -> int:
    """What it counts for in the quota."""
    return VERSION_OVERHEAD_BYTES + len(version.key) + len(version.value)


def encode_key_value(version: Version) -> bytes:
    """The `KeyValue` message; of a tombstone key and mod_revision, as in the events of a watch."""
    value = version.value
    if not value:
        return encode_without_value(version)
    return b"%b\x2a%b%b" % (encode_without_value(version), varint(len(value)), value)


def encode_without_value(version: Version) -> bytes:
    """As `encode_key_value`, for a client that wants keys only."""
    key, create_revision, mod_revision = version.key, version.create_revision, version.mod_revision
    modified = varint(mod_revision)
    if not create_revision:
        return b"\x0a%b%b\x18%b" % (varint(len(key)), key, modified)
    created = modified if create_revision == mod_revision else varint(create_revision)
    parts = (varint(len(key)), key, created, modified, varint(version.version))
    encoded = b"\x0a%b%b\x10%b\x18%b\x20%b" % parts
    return encoded + b"\x30" + varint(version.lease) if version.lease else encoded
