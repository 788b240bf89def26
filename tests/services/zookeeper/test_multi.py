from __future__ import annotations

import pytest

from quorate.services.zookeeper.jute import Reader
from quorate.services.zookeeper.protocol import (
    ANYONE,
    MULTI_END,
    MULTI_HEADER,
    Check,
    Create,
    Delete,
    MultiItem,
    MultiResult,
    Op,
    SetACL,
    SetData,
    pack_multi,
    read_multi_results,
)
from quorate.services.zookeeper.tree import Result
from tests.services.zookeeper.store_helpers import Writer


def multi(writer: Writer, *items: MultiItem) -> Result:
    return writer.write(Op.MULTI, pack_multi(items))


def errors(result: Result) -> list[int]:
    results = read_multi_results(Reader(result[2]))
    assert all(item.op is Op.ERROR for item in results)
    return [item.error for item in results]


def test_all_under_one_zxid() -> None:
    writer = Writer()
    result = multi(
        writer,
        Create(b"/a", b""),
        Create(b"/a/b", b"", op=Op.CREATE2),
        Check(b"/a/b", 0),
        SetData(b"/a", b"1"),
        Delete(b"/a/b"),
    )
    assert result[:2] == (0, 2)
    results = read_multi_results(Reader(result[2]))
    assert [item.op for item in results] == [Op.CREATE, Op.CREATE2, Op.CHECK, Op.SET_DATA, Op.DELETE]
    assert [item.path for item in results] == [b"/a", b"/a/b", None, None, None]
    assert results[3].stat is not None and results[3].stat.version == 1
    assert result[3] == ((1, b"/a"), (4, b"/"), (1, b"/a/b"), (4, b"/a"), (3, b"/a"), (2, b"/a/b"), (4, b"/a"))
    stat = writer.stat(b"/a")
    assert (stat.czxid, stat.mzxid, stat.pzxid, stat.cversion) == (2, 2, 2, 2)


def test_failure_leaves_nothing_behind() -> None:
    writer, other = Writer(), Writer()
    for each in (writer, other):
        each.create(b"/a", b"old")
        each.create(b"/a/e", flags=1)
        each.create(b"/d")
    result = multi(
        writer,
        Create(b"/new", b"", flags=1),
        Create(b"/new-", b"", flags=2),
        SetData(b"/a", b"new"),
        Delete(b"/a/e"),
        Delete(b"/d"),
        Check(b"/a", 0),
        Delete(b"/a"),
    )
    assert result[0] == 0 and result[3] == ()
    assert errors(result) == [0, 0, 0, 0, 0, -103, -2]
    other.create(b"bad")  # as many zxids
    assert writer.store.digest() == other.store.digest()
    assert writer.store.tree.node_count == other.store.tree.node_count
    assert writer.create(b"/a/e")[0] == -110


def test_sequence_numbers_inside_one_multi() -> None:
    writer = Writer()
    result = multi(writer, Create(b"/n", b"", flags=2), Create(b"/n", b"", flags=2))
    paths = [item.path for item in read_multi_results(Reader(result[2]))]
    assert paths == [b"/n0000000000", b"/n0000000001"]


def test_what_one_operation_makes_the_next_sees() -> None:
    writer = Writer()
    assert errors(multi(writer, Delete(b"/a"), Create(b"/a", b""))) == [-101, -2]
    assert multi(writer, Create(b"/a", b""), Create(b"/a/b", b""), Delete(b"/a/b"), Delete(b"/a"))[0] == 0
    assert writer.store.tree.get(b"/a") is None


def test_empty_multi() -> None:
    assert multi(Writer()) == (0, 2, MULTI_END, ())


@pytest.mark.parametrize(("flags", "error"), [(4, -6), (9, -8)])
def test_create_that_is_refused_for_its_flags(flags: int, error: int) -> None:
    assert errors(multi(Writer(), Create(b"/a", b"", flags=flags))) == [error]


def test_containers_inside_a_multi_are_unimplemented() -> None:
    create = Create(b"/a", b"").encode()
    for op, body in ((Op.CREATE_CONTAINER, create), (Op.CREATE_TTL, create + bytes(8))):
        items = MULTI_HEADER.pack(op, False, -1) + body
        result = Writer().write(
            Op.MULTI, items + MULTI_HEADER.pack(Op.DELETE, False, -1) + Delete(b"/").encode() + MULTI_END
        )
        assert read_multi_results(Reader(result[2])) == [MultiResult(Op.ERROR, -6), MultiResult(Op.ERROR, -2)]


def test_other_operations_do_not_belong_in_a_multi() -> None:
    body = MULTI_HEADER.pack(Op.SET_ACL, False, -1) + SetACL(b"/", ANYONE).encode() + MULTI_END
    assert Writer().write(Op.MULTI, body)[0] == -5
