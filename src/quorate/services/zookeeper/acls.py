"""Access control lists: checked and shared, not enforced.

A znode holds its list as the bytes of a jute vector, ready for getACL.  Few lists are
used by many znodes, so equal ones are one object.  The table of them is only a cache: it
may be emptied at any time without a change of the replicated state.

`auth` entries are stored as given.  ZooKeeper replaces them by the identities of the
connection, which only a door knows; a door that authenticates does so before it proposes.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from quorate.services.zookeeper.jute import Reader
from quorate.services.zookeeper.protocol import ANYONE, AccessRule, pack_acl, read_acl

_CACHED_LISTS_MOST: Final = 4096
_CACHED_LIST_BYTES_MOST: Final = 1024

OPEN_ACL: Final = pack_acl(ANYONE)
READ_ONLY_ACL: Final = pack_acl((AccessRule(1, b"world", b"anyone"),))


class AclCache:
    """Checked lists by the bytes that a client sent."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}

    def known(self, sent: bytes) -> bytes | None:
        """The shared list for the bytes of a whole vector, or None where these bytes have not been checked yet."""
        return self._known.get(sent)

    def read(self, reader: Reader) -> bytes | None:
        """Take a vector of ACL; the shared list, or None where it is INVALID_ACL.  Raises JuteError."""
        start = reader.at
        rules = read_acl(reader)
        if not rules or not all(map(_is_valid, rules)):
            return None
        return self._share(reader.data[start : reader.at], pack_acl(tuple(dict.fromkeys(rules))))

    def share(self, checked: bytes) -> bytes:
        """The shared object for a list that was checked before."""
        return self._known.get(checked) or self._share(checked, checked)

    def _share(self, sent: bytes, checked: bytes) -> bytes:
        shared = self._known.get(checked, checked)
        if len(sent) <= _CACHED_LIST_BYTES_MOST:
            if len(self._known) >= _CACHED_LISTS_MOST:
                self._known.clear()
            self._known[sent] = self._known[shared] = shared
        return shared


def _is_valid(rule: AccessRule) -> bool:
    """PrepRequestProcessor.fixupACL, with the schemes that a ZooKeeper server has unless more are configured."""
    match rule.scheme:
        case b"world":
            return rule.identity == b"anyone"
        case b"auth":
            return True
        case b"digest":
            # String.split drops empty parts at the end: `user:` has one part.
            return len(rule.identity.rstrip(b":").split(b":")) == 2
        case b"ip":
            return _is_address(rule.identity)
        case _:
            return False


def _is_address(identity: bytes) -> bool:
    """An IP address, or one and the number of its bits that count, such as 10.0.0.0/8."""
    address, slash, bits = identity.partition(b"/")
    try:
        parsed = ipaddress.ip_address(address.decode("ascii"))
        return not slash or 0 <= int(bits.decode("ascii")) <= parsed.max_prefixlen
    except ValueError:
        return False
