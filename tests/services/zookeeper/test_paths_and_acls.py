from __future__ import annotations

import pytest

from quorate.services.zookeeper.acls import OPEN_ACL, AclCache
from quorate.services.zookeeper.jute import NULL, Reader
from quorate.services.zookeeper.paths import is_path
from quorate.services.zookeeper.protocol import ANYONE, AccessRule, pack_acl


@pytest.mark.parametrize(
    "path", ["/", "/a", "/a/b", "/...", "/..a", "/a..", "/.a", "/ ", "/~", "/é", "/\u00a0", "/\uf900", "/\uffef"]
)
def test_valid_paths(path: str) -> None:
    assert is_path(path.encode())


@pytest.mark.parametrize(
    "path",
    [b"", b"a", b"//", b"/a/", b"/a//b", b"/.", b"/..", b"/a/./b", b"/a/../b", b"/\0", b"/\x1f", b"/\x7f", b"/\xff"],
)
def test_invalid_paths(path: bytes) -> None:
    assert not is_path(path)


@pytest.mark.parametrize("character", ["\u0080", "\u009f", "\ue000", "\uf8ff", "\ufff0", "\uffff", "\U0001f600"])
def test_characters_that_zookeeper_refuses(character: str) -> None:
    assert not is_path(b"/a" + character.encode())


@pytest.mark.parametrize(
    ("scheme", "identity", "valid"),
    [
        (b"world", b"anyone", True),
        (b"world", b"someone", False),
        (b"auth", b"", True),
        (b"digest", b"user:hash", True),
        (b"digest", b":hash", True),
        (b"digest", b"user:", False),
        (b"digest", b"user", False),
        (b"ip", b"10.0.0.0/8", True),
        (b"ip", b"10.0.0.1", True),
        (b"ip", b"::1", True),
        (b"ip", b"10.0.0.0/33", False),
        (b"ip", b"host", False),
        (b"x", b"y", False),
    ],
)
def test_schemes(scheme: bytes, identity: bytes, valid: bool) -> None:
    sent = pack_acl((AccessRule(1, scheme, identity),))
    assert AclCache().read(Reader(sent)) == (sent if valid else None)


def test_empty_and_null_lists_are_invalid() -> None:
    assert AclCache().read(Reader(bytes(4))) is None
    assert AclCache().read(Reader(NULL)) is None


def test_repeated_rules_are_dropped_and_equal_lists_are_one_object() -> None:
    acls = AclCache()
    first = acls.read(Reader(pack_acl(ANYONE)))
    twice = pack_acl(ANYONE + ANYONE)
    assert first == OPEN_ACL
    assert acls.read(Reader(twice)) is first
    assert acls.known(twice) is first


def test_table_of_lists_is_bounded() -> None:
    acls = AclCache()
    for number in range(10_000):
        acls.read(Reader(pack_acl((AccessRule(1, b"digest", b"user:%d" % number),))))
    assert len(acls._known) <= 4098
    long = pack_acl((AccessRule(1, b"digest", b"user:" + b"x" * 2000),))
    assert acls.read(Reader(long)) == long
    assert acls.known(long) is None
