"""What each write does, as ZooKeeper 3.8 does it (compared with a real one when this was written)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.services.zookeeper import commands
from quorate.services.zookeeper.jute import NULL, Reader, pack_buffer
from quorate.services.zookeeper.protocol import (
    ANYONE,
    STAT,
    AccessRule,
    Create,
    Delete,
    Op,
    SetACL,
    SetData,
    Stat,
    pack_acl,
    pack_multi,
)
from quorate.services.zookeeper.store import Store
from tests.services.zookeeper.store_helpers import SESSION, Writer

MARSHALLING, UNIMPLEMENTED, BAD_ARGUMENTS = -5, -6, -8
NO_NODE, BAD_VERSION, NO_CHILDREN_FOR_EPHEMERALS = -101, -103, -108
NODE_EXISTS, NOT_EMPTY, INVALID_ACL = -110, -111, -114


@pytest.fixture
def writer() -> Writer:
    return Writer()


def test_new_store_is_as_a_new_zookeeper(writer: Writer) -> None:
    tree = writer.store.tree
    assert sorted(tree.root.children) == [b"zookeeper"]
    assert writer.stat(b"/") == Stat(0, 0, 0, 0, 0, -1, 0, 0, 0, 1, 0)
    assert writer.stat(b"/zookeeper") == Stat(0, 0, 0, 0, 0, -2, 0, 0, 0, 2, 0)
    assert writer.stat(b"/zookeeper/quota") == Stat(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert writer.stat(b"/zookeeper/config") == Stat(0, 0, 0, 0, 0, 0, -1, 0, 0, 0, 0)
    assert tree.get(b"") is tree.get(b"/") is tree.root
    assert tree.get(b"//") is tree.get(b"x") is tree.get(b"/x") is tree.get(b"/zookeeper/") is None


def test_create(writer: Writer) -> None:
    assert writer.create(b"/a", b"data") == (0, 2, pack_buffer(b"/a"), ((1, b"/a"), (4, b"/")))
    assert writer.stat(b"/a") == Stat(2, 2, 2, 2, 0, 0, 0, 0, 4, 0, 2)
    assert writer.stat(b"/") == Stat(0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2)
    node = writer.store.tree.get(b"/a")
    assert node is not None and node.data_buffer == pack_buffer(b"data") and node.acl == pack_acl(ANYONE)
    assert writer.create(b"/a/b")[3] == ((1, b"/a/b"), (4, b"/a"))


def test_create2_answers_with_the_stat_too(writer: Writer) -> None:
    result = writer.do(Create(b"/a", b"data", op=Op.CREATE2))
    assert result[2] == pack_buffer(b"/a") + writer.stat(b"/a").encode()


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (b"", BAD_ARGUMENTS),
        (b"a", BAD_ARGUMENTS),
        (b"a/b", NO_NODE),
        (b"/", NODE_EXISTS),
        (b"//", BAD_ARGUMENTS),
        (b"//x", BAD_ARGUMENTS),
        (b"/there/", BAD_ARGUMENTS),
        (b"/there//x", NO_NODE),
        (b"/missing/x", NO_NODE),
        (b"/missing/\0", BAD_ARGUMENTS),
        (b"/there/.", BAD_ARGUMENTS),
        (b"/there/..", BAD_ARGUMENTS),
        (b"/there/\x01", BAD_ARGUMENTS),
        (b"/there/\xff", BAD_ARGUMENTS),
        (b"/there", NODE_EXISTS),
        (b"/ephemeral/x", NO_CHILDREN_FOR_EPHEMERALS),
    ],
)
def test_create_refused(writer: Writer, path: bytes, error: int) -> None:
    writer.create(b"/there")
    writer.create(b"/ephemeral", flags=1)
    before = writer.store.tree.node_count
    assert writer.create(path) == (error, 4, b"", ())
    assert writer.store.tree.node_count == before


@pytest.mark.parametrize(("flags", "error"), [(4, UNIMPLEMENTED), (5, UNIMPLEMENTED), (6, UNIMPLEMENTED)])
def test_containers_and_times_to_live_are_unimplemented(writer: Writer, flags: int, error: int) -> None:
    assert writer.create(b"/a", flags=flags)[0] == error


@pytest.mark.parametrize("flags", [7, 8, -1])
def test_create_with_unknown_flags(writer: Writer, flags: int) -> None:
    assert writer.create(b"/a", flags=flags)[0] == BAD_ARGUMENTS


def test_create_with_invalid_acl(writer: Writer) -> None:
    assert writer.do(Create(b"/a", b"", ()))[0] == INVALID_ACL
    assert writer.do(Create(b"/missing/a", b"", ()))[0] == INVALID_ACL
    assert writer.do(Create(b"a", b"", ()))[0] == BAD_ARGUMENTS
    assert writer.do(Create(b"/a", b"", (AccessRule(1, b"nobody", b""),)))[0] == INVALID_ACL


def test_sequential_names_count_creates_and_not_deletes(writer: Writer) -> None:
    writer.create(b"/q")
    assert writer.create(b"/q/n-", flags=2)[2] == pack_buffer(b"/q/n-0000000000")
    assert writer.create(b"/q/x")[0] == 0
    assert writer.delete(b"/q/x")[0] == 0
    assert writer.create(b"/q/n-", flags=2)[2] == pack_buffer(b"/q/n-0000000002")
    assert writer.stat(b"/q").cversion == 4
    assert writer.create(b"/q/", flags=2)[2] == pack_buffer(b"/q/0000000003")
    assert writer.create(b"/q/.", flags=3)[2] == pack_buffer(b"/q/.0000000004")


@pytest.mark.parametrize(("creates", "children"), [(2**30 - 1, 3), (2**30 + 5, 0), (2**31 - 2, 2)])
def test_sequence_survives_the_wrap_of_cversion(writer: Writer, creates: int, children: int) -> None:
    writer.create(b"/q")
    for number in range(children):
        writer.create(b"/q/%d" % number)
    node = writer.store.tree.get(b"/q")
    assert node is not None
    fields = list(STAT.unpack(node.stat))
    fields[5] = ((2 * creates - children) + 2**31) % 2**32 - 2**31
    node.stat = STAT.pack(*fields)
    assert writer.create(b"/q/n", flags=2)[2] == pack_buffer(b"/q/n%010d" % creates)
    writer.delete(b"/q/n%010d" % creates)
    assert writer.create(b"/q/n", flags=2)[2] == pack_buffer(b"/q/n%010d" % (creates + 1))


def test_sequence_ends_without_starting_again(writer: Writer) -> None:
    writer.create(b"/q")
    node = writer.store.tree.get(b"/q")
    assert node is not None
    fields = list(STAT.unpack(node.stat))
    fields[5] = -2  # 2 * (2**31 - 1) as a 32-bit integer
    node.stat = STAT.pack(*fields)
    assert writer.create(b"/q/n", flags=2)[2] == pack_buffer(b"/q/n2147483647")
    assert writer.create(b"/q/n", flags=2)[0] == NODE_EXISTS


def test_ephemeral_has_its_owner(writer: Writer) -> None:
    writer.create(b"/e", flags=1)
    assert writer.stat(b"/e").ephemeral_owner == SESSION
    assert writer.store.tree.ephemerals == {SESSION: {b"/e"}}
    writer.delete(b"/e")
    assert writer.store.tree.ephemerals == {}


def test_delete(writer: Writer) -> None:
    writer.create(b"/a")
    writer.create(b"/a/b")
    assert writer.delete(b"/a")[0] == NOT_EMPTY
    assert writer.delete(b"/a/b", 1)[0] == BAD_VERSION
    assert writer.delete(b"/a/b", 0) == (0, 6, b"", ((2, b"/a/b"), (4, b"/a")))
    assert writer.store.tree.get(b"/a/b") is None
    assert writer.stat(b"/a") == Stat(2, 2, 2, 2, 0, 2, 0, 0, 0, 0, 6)
    assert writer.delete(b"/a", -1)[0] == 0
    assert writer.delete(b"/a", -1)[0] == NO_NODE


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (b"/", BAD_ARGUMENTS),
        (b"", BAD_ARGUMENTS),
        (b"a", BAD_ARGUMENTS),
        (b"/\0", BAD_ARGUMENTS),
        (b"/zookeeper", BAD_ARGUMENTS),
        (b"/zookeeper/quota", BAD_ARGUMENTS),
        (b"/zookeeper/config", BAD_ARGUMENTS),
        (b"/missing", NO_NODE),
        (b"/zookeeper/", NO_NODE),
        (b"//zookeeper", NO_NODE),
    ],
)
def test_delete_refused(writer: Writer, path: bytes, error: int) -> None:
    assert writer.delete(path)[0] == error


def test_set_data(writer: Writer) -> None:
    writer.create(b"/a", b"old")
    result = writer.set_data(b"/a", b"newer", 0)
    assert result == (0, 3, Stat(2, 3, 2, 3, 1, 0, 0, 0, 5, 0, 2).encode(), ((3, b"/a"),))
    assert writer.set_data(b"/a", b"x", 0)[0] == BAD_VERSION
    assert writer.set_data(b"/a", b"x", -1)[0] == 0
    assert writer.set_data(b"/missing", b"")[0] == NO_NODE
    assert writer.set_data(b"", b"")[0] == BAD_ARGUMENTS
    assert writer.set_data(b"/a/", b"")[0] == BAD_ARGUMENTS
    assert writer.set_data(b"/", b"root")[0] == 0


def test_null_data_stays_null(writer: Writer) -> None:
    writer.create(b"/a", None)
    node = writer.store.tree.get(b"/a")
    assert node is not None and node.data_buffer == NULL and writer.stat(b"/a").data_length == 0
    writer.set_data(b"/a", b"")
    assert node.data_buffer == bytes(4)
    writer.set_data(b"/a", None)
    assert node.data_buffer == NULL


@pytest.mark.parametrize(("version", "following"), [(2**31 - 1, -(2**31)), (-2, 0), (-(2**31), -(2**31) + 1)])
def test_version_wraps_and_leaves_out_any(writer: Writer, version: int, following: int) -> None:
    writer.create(b"/a")
    node = writer.store.tree.get(b"/a")
    assert node is not None
    fields = list(STAT.unpack(node.stat))
    fields[4] = version
    node.stat = STAT.pack(*fields)
    assert writer.set_data(b"/a", b"", version)[0] == 0
    assert writer.stat(b"/a").version == following


def test_set_acl(writer: Writer) -> None:
    writer.create(b"/a")
    acl = (AccessRule(1, b"digest", b"user:hash"),)
    result = writer.do(SetACL(b"/a", acl, 0))
    assert result == (0, 3, Stat(2, 2, 2, 2, 0, 0, 1, 0, 0, 0, 2).encode(), ())
    node = writer.store.tree.get(b"/a")
    assert node is not None and node.acl == pack_acl(acl)
    assert writer.do(SetACL(b"/a", acl, 0))[0] == BAD_VERSION
    assert writer.do(SetACL(b"/a", ()))[0] == INVALID_ACL
    assert writer.do(SetACL(b"/missing", ()))[0] == INVALID_ACL
    assert writer.do(SetACL(b"/missing", acl))[0] == NO_NODE
    assert writer.do(SetACL(b"bad", acl))[0] == BAD_ARGUMENTS


def test_every_command_takes_one_zxid() -> None:
    store = Store(first_zxid=7 << 32)
    results = store.apply([b"", commands.write(1, 1, Op.CREATE, b""), commands.write(1, 1, 999, b"")], 5)
    assert [result[:2] for result in results] == [
        (MARSHALLING, (7 << 32) + 1),
        (-112, (7 << 32) + 2),
        (UNIMPLEMENTED, (7 << 32) + 3),
    ]


VALID_BODIES = [
    (Op.CREATE, Create(b"/x", b"data").encode()),
    (Op.CREATE2, Create(b"/x", None, flags=3).encode()),
    (Op.DELETE, Delete(b"/x").encode()),
    (Op.SET_DATA, SetData(b"/x", b"data").encode()),
    (Op.SET_ACL, SetACL(b"/x", ANYONE).encode()),
    (Op.MULTI, pack_multi((Create(b"/x", b""), SetData(b"/x", b"data"), Delete(b"/x")))),
]


@pytest.mark.parametrize(("op", "body"), VALID_BODIES)
def test_truncated_commands_are_answered(writer: Writer, op: int, body: bytes) -> None:
    writer.write(Op.CREATE, Create(b"/other", b"").encode())  # so that its ACL is known
    for size in range(len(body)):
        assert writer.write(op, body[:size])[0] == MARSHALLING
    assert writer.store.tree.get(b"/x") is None
    writer.write(Op.CREATE, Create(b"/x", b"").encode())
    assert writer.write(op, body + b"later fields")[0] in (0, NODE_EXISTS)


@given(st.sampled_from([*VALID_BODIES, (Op.CLOSE_SESSION, b""), (commands.ATTACH, b"")]), st.binary(), st.data())
def test_random_commands_are_answered(case: tuple[int, bytes], noise: bytes, data: st.DataObject) -> None:
    writer = Writer()
    op, body = case
    at = data.draw(st.integers(0, len(body)))
    writer.write(op, body[:at] + noise)
    writer.write(op, body[:at] + noise + body[at + len(noise) :])
    writer.apply(noise)
    assert writer.store.zxid == 4


def test_two_stores_agree() -> None:
    first, second = Writer(), Writer()
    for writer in (first, second):
        for number in range(20):
            writer.create(b"/n", b"x", flags=number % 4)
        writer.delete(b"/n0000000002")
    assert first.store.digest() == second.store.digest()
    second.set_data(b"/n0000000003", b"y")
    assert first.store.digest() != second.store.digest()


def test_reader_of_a_result_body() -> None:
    assert Reader(Writer().create(b"/a")[2]).string("path") == b"/a"
