"""Who is let in, and what is said to those who are not."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quorate import __version__
from quorate.net.connection import HANDSHAKE_FRAME_BYTES
from quorate.net.handshake import (
    ANY_NODE,
    WIRE_VERSION,
    Handshake,
    HandshakeRefused,
    Hello,
    LocalIdentity,
    PeerIdentity,
    Portrait,
    Purpose,
    RefusalCode,
    Unwelcome,
    Welcome,
    conclude_probe,
    greet,
)
from quorate.storage.disk import DiskFull
from tests.net.gates import RememberingGate, identity, incarnation

WIPED = "ff" * 16
CLUSTER_ID, RECOVERED_ID = "ab" * 16, "cd" * 16

encode = msgspec.msgpack.encode


def hello(to_node: int = 1, purpose: Purpose = Purpose.MESSAGES, **changes: Any) -> bytes:
    """Node 0's, but for `changes` of who it is."""
    return encode(greet(identity(0, **changes), to_node, purpose))


def refusal(handshake: Handshake, body: bytes) -> HandshakeRefused:
    with pytest.raises(HandshakeRefused) as caught:
        handshake.accept(body)
    return caught.value


def test_members_of_one_cluster_welcome_each_other() -> None:
    formation = {0: incarnation(0), 1: incarnation(1)}
    zero = RememberingGate(identity(0, cluster_id=CLUSTER_ID, formation=formation, first_members=[0, 1]))
    one = RememberingGate(identity(1, release="0.9", joining=True))
    said, welcome = one.handshake.accept(encode(zero.handshake.hello(1, Purpose.MESSAGES)))
    assert (said.node, said.purpose) == (0, Purpose.MESSAGES)
    assert isinstance(welcome, Welcome)
    assert zero.handshake.conclude(1, encode(welcome)) == welcome
    assert one.admitted == [
        PeerIdentity(
            node=0,
            incarnation=incarnation(0),
            cluster_id=CLUSTER_ID,
            formation=formation,
            admin="10.0.0.1:80",
            address="10.0.0.1:7400",
            release=__version__,
            joining=False,
            first_members=[0, 1],
            dialled=False,
        )
    ]
    assert zero.admitted == [
        PeerIdentity(
            node=1,
            incarnation=incarnation(1),
            cluster_id="",
            formation={},
            admin="10.0.0.2:80",
            address="10.0.0.2:7400",
            release="0.9",
            joining=True,
            first_members=[],
            dialled=True,
        )
    ]
    assert zero.refusals == one.refusals == []


def test_who_a_node_is_may_change_between_handshakes_and_while_it_admits() -> None:
    """The last first member's hello forms the cluster: the answer tells of it already."""

    class Forming(RememberingGate):
        def admit(self, peer: PeerIdentity) -> None:
            super().admit(peer)
            self.identity = dataclasses.replace(self.identity, cluster_id=CLUSTER_ID)

    gate = Forming(identity(1))
    handshake = gate.handshake
    assert handshake.hello(0, Purpose.MESSAGES).cluster_id == ""
    _, welcome = handshake.accept(hello())
    assert welcome.cluster_id == handshake.hello(0, Purpose.MESSAGES).cluster_id == CLUSTER_ID


@pytest.mark.parametrize(
    ("stranger", "to_node", "reason", "code"),
    [
        ({"cluster": "stock"}, 1, "cluster 'stock', this node to 'orders'", RefusalCode.OTHER_CLUSTER),
        (
            {"protocol": "zab"},
            1,
            "protocol zab, node 1 raft: a cluster keeps the protocol with which it was made",
            RefusalCode.INCOMPATIBLE,
        ),
        ({"node": 7}, 1, "node 7 is no member", RefusalCode.UNKNOWN),
        ({"node": 1}, 1, "says that it is node 1, which is this node", RefusalCode.OTHER),
        ({}, 2, "wants node 2, this is node 1", RefusalCode.MISDIRECTED),
        ({"incarnation": WIPED}, 1, "another data folder", RefusalCode.OTHER_FOLDER),
        (
            {"cluster_id": RECOVERED_ID},
            1,
            "id cdcdcdcd, node 1 to that with id abababab: a cluster that was recovered has a new id",
            RefusalCode.OTHER_CLUSTER,
        ),
        *(({"incarnation": bad}, 1, "must be 32 hexadecimal", RefusalCode.OTHER) for bad in ("x", "FF" * 16, "0" * 33)),
        ({"cluster_id": "ab"}, 1, "cluster id 'ab': it must be 32 hexadecimal digits", RefusalCode.OTHER),
        ({"formation": {2: "me"}}, 1, "first members whose incarnations are none", RefusalCode.OTHER),
        *(
            ({"address": bad}, 1, 'it must be "host:port"', RefusalCode.OTHER)
            for bad in ("", "here", "here:0", "here:65536", "a b:1", ":1")
        ),
    ],
)
def test_a_stranger_is_told_why(stranger: dict[str, Any], to_node: int, reason: str, code: RefusalCode) -> None:
    gate = RememberingGate(identity(1, cluster_id=CLUSTER_ID), {0, 1, 2})
    gate.folders[0] = incarnation(0)
    error = refusal(gate.handshake, hello(to_node, **stranger))
    assert reason in str(error)
    assert error.code is code
    assert gate.admitted == []
    dialler = RememberingGate(identity(0))
    with pytest.raises(HandshakeRefused, match="it refused us: ") as caught:
        dialler.handshake.conclude(1, encode(gate.handshake.unwelcome(error)))
    assert caught.value.code is code
    assert dialler.refusals == [(1, code, CLUSTER_ID, str(error))]


@pytest.mark.parametrize(("ours", "theirs"), [("", CLUSTER_ID), (CLUSTER_ID, ""), (CLUSTER_ID, CLUSTER_ID)])
def test_whether_a_node_without_a_cluster_id_comes_in_is_the_gates_to_say(ours: str, theirs: str) -> None:
    gate = RememberingGate(identity(1, cluster_id=ours))
    gate.handshake.accept(hello(cluster_id=theirs))
    assert [peer.cluster_id for peer in gate.admitted] == [theirs]


def test_nodes_of_one_cluster_serve_the_same() -> None:
    both = RememberingGate(identity(1, services=("zookeeper", "etcd"))).handshake
    error = refusal(both, hello())
    assert error.code is RefusalCode.INCOMPATIBLE
    assert "node 0 serves zookeeper, node 1 zookeeper and etcd: give every node the same `services`" in str(error)
    both.accept(hello(services=("zookeeper", "etcd")))


def test_a_node_of_a_version_that_knew_no_other_service_serves_zookeeper() -> None:
    said = msgspec.msgpack.decode(hello())
    del said["services"]
    RememberingGate(identity(1)).handshake.accept(encode(said))
    error = refusal(RememberingGate(identity(1, services=("etcd",))).handshake, encode(said))
    assert "node 0 serves zookeeper, node 1 etcd" in str(error)


def test_another_wire_version_is_refused_by_name_whatever_else_it_says() -> None:
    first = {
        "type": "hello",
        "wire_version": 1,
        "cluster": "orders",
        "protocol": "raft",
        "node": 0,
        "incarnation": incarnation(0),
        "to_node": 1,
        "purpose": "messages",
        "admin": "",
    }
    later = {"type": "hello", "wire_version": 99, "release": "7.0", "node": "zero", "purpose": "gossip", "cluster": 5}
    handshake = RememberingGate(identity(1)).handshake
    for body, complaint in (
        (first, f"wire version 1, this node {WIRE_VERSION} (Quorate unknown and {__version__})"),
        (later, f"wire version 99, this node {WIRE_VERSION} (Quorate 7.0 and {__version__})"),
    ):
        error = refusal(handshake, encode(body))
        assert complaint in str(error)
        assert error.code is RefusalCode.INCOMPATIBLE


def test_a_node_of_the_first_wire_version_reads_why_it_is_refused_and_is_read() -> None:
    class FirstUnwelcome(msgspec.Struct, tag="unwelcome"):
        reason: str

    gate = RememberingGate(identity(1))
    told = encode(gate.handshake.unwelcome(HandshakeRefused("no", RefusalCode.INCOMPATIBLE)))
    assert msgspec.msgpack.decode(told, type=FirstUnwelcome).reason == "no"
    with pytest.raises(HandshakeRefused, match="it refused us: no"):
        gate.handshake.conclude(0, encode(FirstUnwelcome("no")))
    assert gate.refusals == [(0, RefusalCode.OTHER, "", "no")]


def test_a_code_of_a_later_version_is_other() -> None:
    gate = RememberingGate(identity(1))
    with pytest.raises(HandshakeRefused, match="it refused us: full moon"):
        gate.handshake.conclude(0, encode({"type": "unwelcome", "reason": "full moon", "code": "moon"}))
    assert [refused[1] for refused in gate.refusals] == [RefusalCode.OTHER]


def welcome_of(node: int, **changes: Any) -> bytes:
    _, welcome = RememberingGate(identity(node, **changes)).handshake.accept(hello(to_node=node, node=9))
    return encode(welcome)


def test_the_dialling_side_judges_as_well() -> None:
    gate = RememberingGate(identity(0, cluster_id=CLUSTER_ID))
    gate.folders[1] = incarnation(1)
    for to_node, body, complaint, code in (
        (2, welcome_of(1), "node 1 answered at the address of node 2", RefusalCode.MISDIRECTED),
        (1, welcome_of(1, incarnation=WIPED), "another data folder", RefusalCode.OTHER_FOLDER),
        (1, welcome_of(1, cluster_id=RECOVERED_ID), "a new id", RefusalCode.OTHER_CLUSTER),
        (1, welcome_of(1, incarnation="me"), "32 hexadecimal digits", RefusalCode.OTHER),
        (1, welcome_of(1, address="nowhere"), 'must be "host:port"', RefusalCode.OTHER),
    ):
        with pytest.raises(HandshakeRefused, match=complaint) as caught:
            gate.handshake.conclude(to_node, body)
        assert caught.value.code is code
    assert gate.admitted == []
    assert gate.refusals == [], "nobody refused this node"


def test_a_peer_that_cannot_be_remembered_is_refused() -> None:
    class Forgetful(RememberingGate):
        def admit(self, peer: PeerIdentity) -> None:
            raise DiskFull("no space left")

    forgetful = Forgetful(identity(1)).handshake
    assert "node 1 cannot save the incarnation of node 0: no space left" in str(refusal(forgetful, hello()))
    with pytest.raises(HandshakeRefused, match="node 1 cannot save the incarnation of node 0: no space left"):
        forgetful.conclude(0, welcome_of(0))


def test_anybody_may_ask_who_is_there() -> None:
    gate = RememberingGate(identity(1, cluster_id=CLUSTER_ID), set())
    nobody = LocalIdentity(cluster="stock", protocol="", node=ANY_NODE, incarnation="", address="")
    said, portrait = gate.handshake.accept(encode(greet(nobody, ANY_NODE, Purpose.PROBE)))
    assert said.purpose is Purpose.PROBE
    assert gate.admitted == []
    expected = Portrait(WIRE_VERSION, __version__, "orders", CLUSTER_ID, "raft", 1, incarnation(1), identity(1).address)
    assert conclude_probe(encode(portrait)) == expected
    with pytest.raises(HandshakeRefused, match="it refused us: too old") as caught:
        conclude_probe(encode(Unwelcome("too old", RefusalCode.INCOMPATIBLE)))
    assert caught.value.code is RefusalCode.INCOMPATIBLE


def test_the_largest_clusters_first_hello_fits_its_frame() -> None:
    formation = {node: incarnation(node) for node in range(50)}
    local = identity(0, formation=formation, cluster_id=CLUSTER_ID, address="a" * 255 + ":65535", admin="b" * 261)
    assert len(encode(greet(local, 1, Purpose.MESSAGES))) < HANDSHAKE_FRAME_BYTES


# --- bytes of all kinds ----------------------------------------------------------------------

TEXTS = st.text(max_size=40) | st.sampled_from(["orders", "raft", incarnation(0), "10.0.0.1:7400", "hello", "messages"])
VALUES = (
    st.none() | st.integers(-(1 << 63), (1 << 63) - 1) | TEXTS | st.dictionaries(st.integers(-2, 9), TEXTS, max_size=3)
)
PROPER = {
    "hello": msgspec.to_builtins(greet(identity(0), 1, Purpose.MESSAGES)),
    "welcome": msgspec.msgpack.decode(welcome_of(1)),
    "unwelcome": msgspec.msgpack.decode(encode(Unwelcome("no"))),
    "portrait": msgspec.msgpack.decode(
        encode(Portrait(WIRE_VERSION, "0", "orders", "", "raft", 1, incarnation(1), "h:1"))
    ),
}
BODIES = st.binary(max_size=200) | st.one_of(
    [
        st.dictionaries(st.sampled_from(sorted(proper)), VALUES, max_size=3).map(
            lambda changes, proper=proper: encode({**proper, **changes})  # type: ignore[misc]
        )
        for proper in PROPER.values()
    ]
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=BODIES)
def test_any_bytes_are_understood_or_refused(body: bytes) -> None:
    gate = RememberingGate(identity(1))
    try:
        said, answer = gate.handshake.accept(body)
    except HandshakeRefused as error:
        assert isinstance(error.code, RefusalCode)
        assert gate.admitted == []
    else:
        assert isinstance(said, Hello)
        assert isinstance(answer, Portrait) == (said.purpose is Purpose.PROBE)
    try:
        RememberingGate(identity(0)).handshake.conclude(1, body)
    except HandshakeRefused as error:
        assert isinstance(error.code, RefusalCode)
    try:
        conclude_probe(body)
    except HandshakeRefused as error:
        assert isinstance(error.code, RefusalCode)


@given(body=st.binary(max_size=200))
def test_random_bytes_are_refused(body: bytes) -> None:
    gate = RememberingGate(identity(0))
    with pytest.raises(HandshakeRefused):
        gate.handshake.accept(body)
    with pytest.raises(HandshakeRefused):
        gate.handshake.conclude(1, body)
    with pytest.raises(HandshakeRefused):
        conclude_probe(body)


@settings(deadline=None)
@given(proper=st.sampled_from(list(PROPER.values())), at=st.integers(0, 400), byte=st.integers(0, 255))
def test_a_damaged_byte_makes_another_handshake_or_a_refusal(proper: Any, at: int, byte: int) -> None:
    """Among them texts that are no UTF-8."""
    body = bytearray(encode(proper))
    body[at % len(body)] = byte
    handshake = RememberingGate(identity(1)).handshake
    for judge in (handshake.accept, lambda body: handshake.conclude(1, body), conclude_probe):
        with contextlib.suppress(HandshakeRefused):
            judge(bytes(body))
