"""What nodes say to each other: no group gets a message of a protocol that is not its own, whatever comes."""

from collections.abc import Mapping
from random import Random
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.consensus.membership import Configuration
from quorate.consensus.protocols import PROTOCOLS
from quorate.consensus.records import Recovered
from quorate.consensus.replica import Message, Receive, ReplicaConfig
from quorate.net.frames import FrameError
from quorate.node.wire import FrameReader, NodeMessage, Positions
from quorate.simulation.cluster import SERVICE_GROUP
from tests.node.whole_nodes import WholeNodes

GROUPS = {0: PROTOCOLS["raft"], 1: PROTOCOLS["zab"], 2: PROTOCOLS["paxos"]}
READER = FrameReader(GROUPS)
MESSAGE_TYPES: Mapping[str, tuple[type[Message], ...]] = {
    name: get_args(protocol.message_type) for name, protocol in PROTOCOLS.items()
}

values = st.recursive(
    st.integers(-(2**63), 2**64 - 1) | st.booleans() | st.binary(max_size=4) | st.none() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)
tags = st.sampled_from([kind.__struct_config__.tag for kinds in MESSAGE_TYPES.values() for kind in kinds])


@st.composite
def messages(draw: st.DrawFn) -> Any:
    """Fields of the right kinds more often than chance would have them."""
    kind = draw(st.sampled_from([*(kind for kinds in MESSAGE_TYPES.values() for kind in kinds)]))
    return draw(st.from_type(kind)) if draw(st.booleans()) else [draw(tags), *draw(st.lists(values, max_size=8))]


def test_messages_of_one_name_are_told_apart() -> None:
    tags = [kind.__struct_config__.tag for kinds in (*MESSAGE_TYPES.values(), get_args(NodeMessage)) for kind in kinds]
    assert len(tags) == len(set(tags))
    names = [kind.__name__ for kinds in MESSAGE_TYPES.values() for kind in kinds]
    assert len(names) > len(set(names)), "else this test would show nothing"


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_group_takes_what_its_own_protocol_says(group: int, name: str) -> None:
    [request] = [kind for kind in MESSAGE_TYPES[name] if kind.__name__ == "BarrierRequest"]
    items = [(0, Positions({1: 2})), (group, request(4, 5, 6))]
    body = msgspec.msgpack.encode(items)
    if GROUPS[group].name == name:
        assert READER.read(body) == items
    else:
        problem = f"group {group} runs on {GROUPS[group].name}, which knows no message '{name}.BarrierRequest'"
        with pytest.raises(FrameError, match=problem):
            READER.read(body)


def test_a_protocol_that_no_group_runs_on_is_not_understood() -> None:
    [request] = [kind for kind in MESSAGE_TYPES["zab"] if kind.__name__ == "BarrierRequest"]
    reader = FrameReader({0: PROTOCOLS["raft"]})
    with pytest.raises(msgspec.DecodeError):
        reader.read(msgspec.msgpack.encode([(0, request(4, 5, 6))]))


def test_what_is_for_a_group_that_is_not_here_is_its_node_s_to_drop() -> None:
    [request] = [kind for kind in MESSAGE_TYPES["zab"] if kind.__name__ == "BarrierRequest"]
    items = [(7, request(4, 5, 6))]
    assert READER.read(msgspec.msgpack.encode(items)) == items


@given(st.lists(st.tuples(st.sampled_from([0, 1, 2, 2**63]), messages()), max_size=3))
def test_whatever_is_read_can_be_handed_to_its_group_s_replica(items: list[tuple[int, Any]]) -> None:
    """Whatever cannot is one of the errors for which the connection is cut."""
    try:
        read = READER.read(msgspec.msgpack.encode(items))
    except (msgspec.DecodeError, UnicodeDecodeError, FrameError):
        return
    except OverflowError:
        return  # such a number cannot be sent
    config = ReplicaConfig(0, Configuration.make(1, dict.fromkeys(range(3), "")))
    for group, message in read:
        if group in GROUPS:
            replica = GROUPS[group].build(config, Recovered(), Random(1), 0)
            replica.step(Receive(1, message), 1)


@given(st.binary(max_size=40), st.integers(0, 100))
def test_bytes_that_were_damaged_on_the_way_are_read_or_refused(noise: bytes, place: int) -> None:
    [commit] = [kind for kind in MESSAGE_TYPES["raft"] if kind.__name__ == "Commit"]
    whole = msgspec.msgpack.encode([(0, commit(4, 5)), (1, Positions({3: 4}))])
    for body in (noise, whole[:place], whole[:place] + noise + whole[place + len(noise) :]):
        try:
            READER.read(body)
        except (msgspec.DecodeError, UnicodeDecodeError, FrameError):
            continue


def test_a_peer_that_speaks_another_protocol_is_cut_off_and_the_node_lives(caplog: pytest.LogCaptureFixture) -> None:
    [commit] = [kind for kind in MESSAGE_TYPES["raft"] if kind.__name__ == "Commit"]
    cluster = WholeNodes(3, protocol="zookeeper=zab")
    leader = cluster.start_all()
    speaker, hearer = (node for node in cluster.members if node != leader)
    link = cluster.nodes[speaker]._links.by_peer[hearer]
    for message in (commit(4, 5), [1, 2, 3], b"\xff"):
        caplog.clear()
        link.queue((SERVICE_GROUP, message))
        cluster.pass_time(1.0)
        [cut] = [text for text in caplog.messages if text.startswith(f"cut the connection from node {speaker}")]
        assert isinstance(message, list | bytes) or "group 1 runs on zab, which knows no message 'raft.Commit'" in cut
        assert link.connected, "it was dialled again"
    assert cluster.leader() == leader
    cluster.close()
