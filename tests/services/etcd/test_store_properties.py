"""Whatever a store is told, it answers like the model; replicas stay equal wherever their sweeps are; snapshots are
exact, whatever is written, compacted and swept while they are taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from quorate.services.etcd import commands, history, sorted_keys
from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.snapshot import SnapshotWriter
from quorate.services.etcd.store import Compacted, Store
from tests.services.etcd.store_helpers import RESPONSES, command_of, response_of
from tests.services.etcd.store_model import Model, Refusal

keys = st.sampled_from([b"a", b"aa", b"ab", b"b", b"c", b"\0", b"\xff"])
range_ends = st.sampled_from([b"", b"", b"\0", b"aa", b"b", b"c", b"\xff", b"a"])
values = st.sampled_from([b"", b"x", b"y", b"z" * 200])
leases = st.integers(1, 3)
maybe_lease = st.sampled_from([0, 0, 0, 1, 2, 3, -1])
few = st.integers(0, 3)
revisions = st.one_of(st.just(0), st.integers(-1, 30))

ranges = st.builds(
    pb.RangeRequest,
    key=keys,
    range_end=range_ends,
    limit=st.integers(-1, 4),
    revision=revisions,
    sort_order=st.integers(0, 2),
    sort_target=st.integers(0, 4),
    keys_only=st.booleans(),
    count_only=st.sampled_from([False, False, True]),
    min_mod_revision=st.sampled_from([0, 0, 0, 3, 10]),
    max_mod_revision=st.sampled_from([0, 0, 0, 3, 10]),
    min_create_revision=st.sampled_from([0, 0, 0, 3, 10]),
    max_create_revision=st.sampled_from([0, 0, 0, 3, 10]),
)
plain_ranges = st.builds(pb.RangeRequest, key=keys, range_end=range_ends, limit=few, sort_order=few)
puts = st.builds(
    pb.PutRequest,
    key=keys,
    value=values,
    lease=maybe_lease,
    prev_kv=st.booleans(),
    ignore_value=st.sampled_from([False, False, False, True]),
    ignore_lease=st.sampled_from([False, False, False, True]),
)
deletions = st.builds(pb.DeleteRangeRequest, key=keys, range_end=range_ends, prev_kv=st.booleans())


targets = st.one_of(
    st.builds(lambda n: {"target": pb.Compare.VERSION, "version": n}, few),
    st.builds(lambda n: {"target": pb.Compare.CREATE, "create_revision": n}, st.integers(0, 15)),
    st.builds(lambda n: {"target": pb.Compare.MOD, "mod_revision": n}, st.integers(0, 15)),
    st.builds(lambda v: {"target": pb.Compare.VALUE, "value": v}, values),
    st.builds(lambda n: {"target": pb.Compare.LEASE, "lease": n}, few),
    st.builds(lambda n: {"target": n}, st.integers(0, 4)),
)
compares = st.builds(
    lambda key, range_end, result, target: pb.Compare(key=key, range_end=range_end, result=result, **target),
    keys,
    range_ends,
    st.integers(0, 3),
    targets,
)


def written_by(operation: pb.RequestOp) -> set[bytes]:
    if operation.HasField("request_put"):
        return {operation.request_put.key}
    if operation.HasField("request_txn"):
        request = operation.request_txn
        return {key for branch in (request.success, request.failure) for op in branch for key in written_by(op)}
    return set()


def may_delete(operation: pb.RequestOp) -> bool:
    if operation.HasField("request_txn"):
        request = operation.request_txn
        return any(map(may_delete, [*request.success, *request.failure]))
    return operation.HasField("request_delete_range")


def without_clashes(operations: list[pb.RequestOp]) -> list[pb.RequestOp]:
    """As the door has it: no key is put twice, and here none is put after a deletion."""
    kept: list[pb.RequestOp] = []
    written: set[bytes] = set()
    deleted = False
    for operation in operations:
        own = written_by(operation)
        if own & written or (own and deleted):
            continue
        written |= own
        deleted = deleted or may_delete(operation)
        kept.append(operation)
    return kept


simple_operations = st.one_of(
    st.builds(lambda request: pb.RequestOp(request_range=request), ranges | plain_ranges),
    st.builds(lambda request: pb.RequestOp(request_put=request), puts),
    st.builds(lambda request: pb.RequestOp(request_delete_range=request), deletions),
)


def transactions(operations: st.SearchStrategy[pb.RequestOp]) -> st.SearchStrategy[pb.TxnRequest]:
    branches = st.lists(operations, max_size=4).map(without_clashes)
    return st.builds(pb.TxnRequest, compare=st.lists(compares, max_size=2), success=branches, failure=branches)


operations = st.recursive(
    simple_operations,
    lambda inner: transactions(inner).map(lambda request: pb.RequestOp(request_txn=request)),
    max_leaves=6,
)


@dataclass
class OpenSnapshot:
    writer: SnapshotWriter
    digest: str
    slices: list[bytes]
    behind: list[list[bytes]]
    """Batches applied since it was begun."""


class StoreMachine(RuleBasedStateMachine):
    """Two replicas and the model.  Both apply the same, and sweep each at its own times."""

    granted = Bundle("granted")

    @initialize()
    def begin(self) -> None:
        self.model = Model()
        self.first = Store()
        self.second = Store()
        self.time_ms = 0
        self.snapshot: OpenSnapshot | None = None

    def perform(self, request: Any, expected: Any) -> Any:
        command = command_of(request)
        try:
            wanted = expected()
        except Refusal as refusal:
            wanted = refusal.error
        self.time_ms += 1
        (result,) = self.first.apply([command], self.time_ms)
        assert response_of(result, RESPONSES[command[:1]]) == wanted
        assert self.second.apply([command], self.time_ms) == [result]
        if self.snapshot is not None:
            self.snapshot.behind.append([command])
        return wanted

    # --- writes ---

    @rule(request=puts)
    def put(self, request: pb.PutRequest) -> None:
        self.perform(request, lambda: self.model.put(request))

    @rule(key=keys, value=values)
    def put_plainly(self, key: bytes, value: bytes) -> None:
        request = pb.PutRequest(key=key, value=value)
        self.perform(request, lambda: self.model.put(request))

    @rule(request=deletions)
    def delete(self, request: pb.DeleteRangeRequest) -> None:
        self.perform(request, lambda: self.model.delete_range(request))

    @rule(request=transactions(operations))
    def txn(self, request: pb.TxnRequest) -> None:
        self.perform(request, lambda: self.model.txn(request))

    @rule(back=st.integers(-1, 20))
    def compact(self, back: int) -> None:
        request = pb.CompactionRequest(revision=self.model.revision - back)
        self.perform(request, lambda: self.model.compact(request))

    @rule(target=granted, lease=leases, ttl_s=st.integers(0, 5))
    def grant(self, lease: int, ttl_s: int) -> tuple[int, int]:
        self.perform(commands.grant(lease, ttl_s), lambda: self.model.grant(lease, ttl_s))
        return lease, self.model.grants

    @rule(lease=leases)
    def revoke(self, lease: int) -> None:
        self.perform(commands.revoke(lease), lambda: self.model.revoke(lease))

    @rule(lease=consumes(granted))
    def expire(self, lease: tuple[int, int]) -> None:
        self.perform(commands.expire(*lease), lambda: self.model.expire(*lease))

    # --- reads ---

    @rule(request=ranges | plain_ranges)
    def range(self, request: pb.RangeRequest) -> None:
        wanted: Any
        try:
            wanted = self.model.range(request)
        except Refusal as refusal:
            wanted = refusal.error
        assert response_of(self.first.range(request), pb.RangeResponse) == wanted

    @rule(key=keys)
    def get(self, key: bytes) -> None:
        wanted = self.model.range(pb.RangeRequest(key=key))
        assert response_of(self.first.get(key), pb.RangeResponse) == wanted

    @rule(back=st.integers(0, 20))
    def follow(self, back: int) -> None:
        start = self.model.revision - back
        if start < self.model.compacted:
            with pytest.raises(Compacted):
                self.first.changes(start)
            return
        changes = list(self.first.changes(start))
        assert [tuple(map(change.__getattribute__, change.__struct_fields__)) for change in changes] == [
            tuple(change) for change in self.model.all_changes(start)
        ]
        for change in changes:
            before = self.first.version_before(change)
            revision = change.mod_revision - 1
            known = self.model.states[revision].get(change.key) if revision >= self.model.compacted else None
            assert (before and before.version) == (known and known.version)

    # --- upkeep ---

    @rule(store=st.sampled_from(["first", "second"]), versions=st.integers(1, 10))
    def sweep(self, store: str, versions: int) -> None:
        getattr(self, store).sweep(versions)

    @rule(versions_per_slice=st.integers(1, 5))
    def begin_snapshot(self, versions_per_slice: int) -> None:
        if self.snapshot is None:
            writer = self.first.snapshot()
            writer.versions_per_slice = versions_per_slice
            self.snapshot = OpenSnapshot(writer, self.first.digest(), [], [])

    @rule(count=st.integers(1, 4), abandon=st.sampled_from([False] * 9 + [True]))
    def take_slices(self, count: int, abandon: bool) -> None:
        """Once it is whole, the second replica is replaced by what it holds, and catches up."""
        if self.snapshot is None:
            return
        if abandon:
            self.snapshot.writer.close()
            self.snapshot = None
            return
        for _ in range(count):
            slice_ = next(self.snapshot.writer, None)
            if slice_ is None:
                self.second = Store()
                loader = self.second.restore()
                for taken in self.snapshot.slices:
                    loader.feed(taken)
                loader.finish()
                assert self.second.digest() == self.snapshot.digest
                for batch in self.snapshot.behind:
                    self.second.apply(batch, self.time_ms)
                self.snapshot = None
                return
            self.snapshot.slices.append(slice_)

    # --- always ---

    @invariant()
    def replicas_are_equal(self) -> None:
        self.second.time_ms = self.first.time_ms
        assert self.first.digest() == self.second.digest()

    @invariant()
    def the_model_is_right(self) -> None:
        store, model = self.first, self.model
        assert (store.revision, store.compacted_revision) == (model.revision, model.compacted)
        assert store.size_bytes == model.size_bytes()
        assert {id_: (lease.ttl_s, lease.generation, lease.keys) for id_, lease in store.leases.items()} == {
            id_: (lease.ttl_s, lease.generation, model.keys_of(id_)) for id_, lease in model.leases.items()
        }

    def teardown(self) -> None:
        """Swept to the end, a store holds what the model remembers and no more."""
        if not hasattr(self, "model"):
            return
        if self.snapshot is not None:
            self.snapshot.writer.close()
        for store in (self.first, self.second):
            while store.sweep(3):
                pass
            assert store.summary()["versions"] == len(list(self.model.all_changes(0)))
        assert self.first.digest() == self.second.digest()


@pytest.mark.slow
@pytest.mark.timeout(900)  # where it fails, hypothesis looks for a shorter example for up to 300 s
@pytest.mark.parametrize(("chunk", "examples"), [(1024, 20), (4, 80)])
def test_store_and_model_agree(monkeypatch: pytest.MonkeyPatch, chunk: int, examples: int) -> None:
    """With small chunks too, so that a few keys and versions are many chunks."""
    monkeypatch.setattr(history, "_MAX_CHUNK", chunk)
    monkeypatch.setattr(sorted_keys, "_MAX_CHUNK", chunk)
    monkeypatch.setattr(sorted_keys, "_SMALL_CHUNK", chunk // 4)
    run_state_machine_as_test(
        StoreMachine, settings=settings(max_examples=examples, stateful_step_count=50, deadline=None)
    )


one_of_two = st.sampled_from([b"a", b"b"])
batches = st.lists(
    st.one_of(
        *[st.builds(pb.PutRequest, key=one_of_two, value=values)] * 4,
        *[st.builds(pb.PutRequest, key=one_of_two, value=values, lease=st.just(1))] * 2,
        st.builds(pb.DeleteRangeRequest, key=one_of_two),
        st.just(commands.revoke(1)),
        st.just(commands.grant(1, 10)),
    ).map(command_of),
    min_size=1,
    max_size=30,
)
quotas = st.just(1 << 20) | st.integers(500, 10_000)


@settings(max_examples=300)
@given(batches, quotas, st.data())
def test_a_batch_comes_to_what_its_commands_come_to_one_by_one(
    batch: list[bytes], quota_bytes: int, data: st.DataObject
) -> None:
    """Plain puts in a row are done together; the quota may refuse any of them."""
    at_once, one_by_one = Store(quota_bytes), Store(quota_bytes)
    batch = [commands.grant(1, 10), *batch]
    results = at_once.apply(batch, 1)
    assert results == [result for command in batch for result in one_by_one.apply([command], 1)]
    assert list(at_once.snapshot()) == list(one_by_one.snapshot())
    assert [lease.keys for lease in at_once.leases.values()] == [lease.keys for lease in one_by_one.leases.values()]
    compaction = command_of(pb.CompactionRequest(revision=data.draw(st.integers(1, at_once.revision))))
    assert at_once.apply([compaction], 2) == one_by_one.apply([compaction], 2)
    restored = Store(quota_bytes)
    loader = restored.restore()
    for part in at_once.snapshot():
        loader.feed(part)
    loader.finish()
    assert at_once.size_bytes == one_by_one.size_bytes == restored.size_bytes
