"""What is refused before consensus, compared with what a real etcd refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from quorate.services.etcd import checks
from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.encoding import bytes_field
from quorate.services.etcd.errors import EtcdError
from tests.services.etcd.peer import Peer
from tests.services.etcd.refusals import ANSWERS, REQUESTS, Case, nested, put, read

CHECKS: dict[type, Callable[[Any], EtcdError | None]] = {
    pb.RangeRequest: checks.check_range,
    pb.PutRequest: checks.check_put,
    pb.DeleteRangeRequest: checks.check_delete_range,
    pb.TxnRequest: lambda request: checks.check_txn(request, 128),
}


@pytest.mark.parametrize("case", REQUESTS, ids=lambda case: case.situation)
def test_a_request_is_refused_for(case: Case) -> None:
    assert CHECKS[type(case.request)](case.request) is case.error


@pytest.mark.processes
@pytest.mark.parametrize("case", [*REQUESTS, *ANSWERS], ids=lambda case: case.situation)
def test_etcd_refuses_for(case: Case, etcd: Peer) -> None:
    with grpc.insecure_channel(etcd.endpoints[0]) as channel:
        ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(case.method)
        if case.error is None:
            ask(case.request.SerializeToString(), timeout=10)
        else:
            with pytest.raises(grpc.RpcError) as refusal:
                ask(case.request.SerializeToString(), timeout=10)
            assert (refusal.value.code().name, refusal.value.details()) == (case.error.code.name, case.error.message)


@pytest.mark.parametrize(
    "request_",
    [
        pb.RangeRequest(key=b"k", sort_order=3),  # type: ignore[arg-type]
        pb.RangeRequest(key=b"k", sort_target=5),  # type: ignore[arg-type]
        pb.RangeRequest(key=b"k", sort_order=-1),  # type: ignore[arg-type]
    ],
)
def test_orders_and_targets_that_do_not_exist(request_: pb.RangeRequest) -> None:
    """etcd 3.4 crashes; later ones say this."""
    assert checks.check_range(request_) is EtcdError.INVALID_SORT_OPTION


def test_a_bush_of_nested_transactions_is_refused_before_it_is_looked_through() -> None:
    """40 x 40 x 40 operations: within etcd's limits, as no way down has more than 120."""
    leaves = nested([read()] * 40)
    request = pb.TxnRequest(success=[nested([leaves] * 40)] * 40)
    assert checks.check_txn(request, 128) is EtcdError.TOO_MANY_OPS


def test_a_transaction_of_many_puts_and_deleted_ranges() -> None:
    request = pb.TxnRequest(
        success=[
            nested(
                [put(b"%d/%d" % (group, each)) for each in range(60)]
                + [
                    pb.RequestOp(
                        request_delete_range=pb.DeleteRangeRequest(key=b"d%d/%d" % (group, each), range_end=b"e")
                    )
                    for each in range(50)
                ]
            )
            for group in range(18)
        ]
    )
    assert checks.check_txn(request, 128) is None


def test_serializable_means_every_read() -> None:
    some, none = read(serializable=True), read()
    assert checks.is_serializable(pb.TxnRequest(success=[some], failure=[some]))
    assert not checks.is_serializable(pb.TxnRequest(success=[some, none]))
    assert not checks.is_serializable(pb.TxnRequest(success=[some], failure=[none]))


def test_comparisons_alone_are_linearizable() -> None:
    """etcd 3.4 answers them from the node's own state; here they wait for the barrier."""
    assert not checks.is_serializable(pb.TxnRequest(compare=[pb.Compare(key=b"k", version=0)]))


def test_encoding_of_nested_transactions_by_hand() -> None:
    inner = pb.TxnRequest(success=[read()])
    outer = pb.TxnRequest(success=[pb.RequestOp(request_txn=inner)])
    assert bytes_field(2, bytes_field(4, inner.SerializeToString())) == outer.SerializeToString()
