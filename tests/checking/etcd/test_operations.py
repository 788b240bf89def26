"""Calls of etcd's clients as operations on one key at a time."""

from __future__ import annotations

from quorate.checking.etcd.operations import operations
from quorate.checking.etcd.records import Call
from quorate.checking.linearizability import Verdict, check
from quorate.checking.models import KV
from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.errors import EtcdError
from tests.checking.etcd.log import Log


def told(log: Log) -> list[tuple[object, ...]]:
    """(f, key, argument, result; whether that is known) of each operation."""
    return [
        (item.f, item.key, item.argument, item.result, item.returned_at is not None) for item in operations(log.history)
    ]


def put_op(value: bytes, key: bytes = b"k") -> pb.RequestOp:
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value))


def if_value(value: bytes) -> pb.Compare:
    return pb.Compare(key=b"k", target=pb.Compare.VALUE, value=value)


ABSENT = pb.Compare(key=b"k", target=pb.Compare.CREATE, create_revision=0)


def test_what_each_call_is() -> None:
    log = Log()
    log.write(pb.TxnRequest(compare=[ABSENT], success=[put_op(b"a")]), process="p")
    log.write(pb.TxnRequest(compare=[if_value(b"x")], success=[put_op(b"b"), put_op(b"b", b"o")]), process="p")
    log.write(pb.TxnRequest(compare=[if_value(b"a")], success=[put_op(b"c"), put_op(b"c", b"o")]), process="p")
    log.write(log.putting(b"k", b"d"), process="p")
    log.read(b"k").process = "p"
    log.write(pb.DeleteRangeRequest(key=b"k"), process="p")
    log.write(pb.DeleteRangeRequest(key=b"k"), process="p")
    log.read(b"k").process = "p"
    log.put(b"not watched")
    assert told(log) == [
        ("cas", "k", [None, "a"], True, True),
        ("cas", "k", ["x", "b"], False, True),
        ("cas", "k", ["a", "c"], True, True),
        ("put", "o", "c", None, True),
        ("put", "k", "d", None, True),
        ("get", "k", None, "d", True),
        ("delete", "k", None, True, True),
        ("delete", "k", None, False, True),
        ("get", "k", None, None, True),
    ]
    assert check(operations(log.history), KV).verdict is Verdict.VALID


def test_what_is_not_known_may_have_been_and_what_was_refused_was_not() -> None:
    log = Log()
    lost = log.lost(pb.TxnRequest(compare=[ABSENT], success=[put_op(b"a"), put_op(b"a", b"o")]), done=True)
    refused = log.refused(pb.PutRequest(key=b"k", value=b"b"), EtcdError.NO_LEADER)
    unread = Call("a", pb.RangeRequest(key=b"k"), log.at + 1)
    log.history.calls.append(unread)
    for number, call in enumerate((lost, refused, unread)):
        call.process = f"p{number}"
    log.read(b"k").process = "q"
    assert told(log) == [
        ("cas", "k", [None, "a"], False, False),
        ("put", "o", "a", None, False),
        ("get", "k", None, "a", True),
    ]
    assert check(operations(log.history), KV).verdict is Verdict.VALID


def test_a_stale_read_is_found_without_revisions() -> None:
    log = Log()
    log.write(log.putting(b"k", b"a"), process="p")
    log.write(log.putting(b"k", b"b"), process="p")
    read = log.read(b"k")
    read.process = "q"
    assert isinstance(read.response, pb.RangeResponse)
    read.response.kvs[0].value = b"a"
    assert check(operations(log.history), KV).verdict is Verdict.INVALID
