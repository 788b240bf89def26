"""Who is let in, and what is said to those who are not."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.net.handshake import (
    Handshake,
    HandshakeRefused,
    LocalIdentity,
    Purpose,
    Unwelcome,
    Welcome,
)
from quorate.storage.disk import DiskFull

FOLDERS = {0: "00" * 16, 1: "11" * 16, 7: "77" * 16}
WIPED = "ff" * 16


def identity(node: int, cluster: str = "orders", protocol: str = "raft", incarnation: str = "") -> LocalIdentity:
    return LocalIdentity(cluster, protocol, node, incarnation or FOLDERS[node], f"127.0.0.1:{4181 + node}")


def handshake(local: LocalIdentity, known: dict[int, str] | None = None) -> Handshake:
    folders = {} if known is None else known

    def admit(node: int, incarnation: str) -> str | None:
        expected = folders.setdefault(node, incarnation)
        return None if expected == incarnation else f"node {node} came with another data folder"

    return Handshake(local, frozenset({0, 1, 2}), admit)


def test_members_of_one_cluster_welcome_each_other() -> None:
    zero, one = handshake(identity(0)), handshake(identity(1))
    hello, welcome = one.accept(msgspec.msgpack.encode(zero.hello(1, Purpose.MESSAGES)))
    assert (hello.node, hello.purpose, hello.admin) == (0, Purpose.MESSAGES, "127.0.0.1:4181")
    assert zero.conclude(1, msgspec.msgpack.encode(welcome)).incarnation == FOLDERS[1]


@pytest.mark.parametrize(
    ("stranger", "to_node", "reason"),
    [
        (identity(0, cluster="stock"), 1, "cluster 'stock', this node to 'orders'"),
        (identity(0, protocol="zab"), 1, "protocol 'zab', this cluster 'raft'"),
        (identity(7), 1, r"node 7 is not one of this cluster's other members \[0, 1, 2\]"),
        (identity(1), 1, "node 1 is not one of this cluster's other members"),
        (identity(0), 2, "wants node 2, this is node 1"),
        (identity(0, incarnation=WIPED), 1, "another data folder"),
    ],
)
def test_a_stranger_is_told_why(stranger: LocalIdentity, to_node: int, reason: str) -> None:
    acceptor = handshake(identity(1), {0: FOLDERS[0]})
    with pytest.raises(HandshakeRefused, match=reason):
        acceptor.accept(msgspec.msgpack.encode(handshake(stranger).hello(to_node, Purpose.MESSAGES)))


def test_another_wire_version_is_refused_by_name() -> None:
    hello = msgspec.structs.replace(handshake(identity(0)).hello(1, Purpose.SNAPSHOT), wire_version=2)
    with pytest.raises(HandshakeRefused, match="wire version 2, this node 1"):
        handshake(identity(1)).accept(msgspec.msgpack.encode(hello))


def test_the_dialling_side_judges_as_well() -> None:
    zero = handshake(identity(0), {1: FOLDERS[1]})
    _, welcome = handshake(identity(1)).accept(msgspec.msgpack.encode(zero.hello(1, Purpose.MESSAGES)))
    with pytest.raises(HandshakeRefused, match="node 1 answered at the address of node 2"):
        zero.conclude(2, msgspec.msgpack.encode(welcome))
    other_folder = handshake(dataclasses.replace(identity(1), incarnation=WIPED))
    _, welcome = other_folder.accept(msgspec.msgpack.encode(zero.hello(1, Purpose.MESSAGES)))
    with pytest.raises(HandshakeRefused, match="another data folder"):
        zero.conclude(1, msgspec.msgpack.encode(welcome))
    with pytest.raises(HandshakeRefused, match="it refused us: go away"):
        zero.conclude(1, msgspec.msgpack.encode(Unwelcome("go away")))


@pytest.mark.parametrize("incarnation", ["x", "FF" * 16, "0" * 31, "0" * 33])
def test_an_incarnation_must_be_one(incarnation: str) -> None:
    stranger = handshake(identity(0, incarnation=incarnation))
    with pytest.raises(HandshakeRefused, match="32 hexadecimal digits"):
        handshake(identity(1)).accept(msgspec.msgpack.encode(stranger.hello(1, Purpose.MESSAGES)))
    with pytest.raises(HandshakeRefused, match="32 hexadecimal digits"):
        handshake(identity(1)).conclude(0, msgspec.msgpack.encode(Welcome(0, incarnation, "")))


def test_a_peer_that_cannot_be_remembered_is_refused() -> None:
    def admit(node: int, incarnation: str) -> str | None:
        raise DiskFull("no space left")

    forgetful = Handshake(identity(1), frozenset({0, 1, 2}), admit)
    with pytest.raises(HandshakeRefused, match="node 1 cannot save the incarnation of node 0: no space left"):
        forgetful.accept(msgspec.msgpack.encode(handshake(identity(0)).hello(1, Purpose.MESSAGES)))
    with pytest.raises(HandshakeRefused, match="node 1 cannot save the incarnation of node 0: no space left"):
        forgetful.conclude(0, msgspec.msgpack.encode(Welcome(0, FOLDERS[0], "")))


@given(body=st.binary(max_size=200))
def test_random_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(HandshakeRefused):
        handshake(identity(1)).accept(body)
    with pytest.raises(HandshakeRefused):
        handshake(identity(0)).conclude(1, body)
