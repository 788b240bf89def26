"""The etcd store under observation: what goes wrong in it is seen, also over a snapshot."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from quorate.services.etcd import commands
from quorate.services.etcd.etcd_pb2 import CompactionRequest, PutRequest, RangeRequest
from quorate.services.etcd.results import Result
from quorate.services.etcd.store import Store
from quorate.services.interface import SnapshotSlices
from quorate.simulation.etcd_store import ObservedStore
from quorate.simulation.store_agreement import StoreAgreement
from quorate.simulation.violation import Violation


def stores() -> tuple[ObservedStore, ObservedStore, list[Violation]]:
    violations: list[Violation] = []
    agreement = StoreAgreement(violations.append)
    return ObservedStore(agreement, 0), ObservedStore(agreement, 1), violations


def put(key: bytes, value: bytes = b"x", lease: int = 0) -> bytes:
    return commands.PUT + PutRequest(key=key, value=value, lease=lease).SerializeToString()


def compact(revision: int) -> bytes:
    return commands.COMPACT + CompactionRequest(revision=revision).SerializeToString()


BATCH = [commands.grant(7, 5), *(put(b"%d" % number, lease=7) for number in range(30)), compact(10)]


def restore(store: ObservedStore, slices: SnapshotSlices) -> None:
    loader = store.restore()
    for slice_ in slices:
        loader.feed(slice_)
    loader.finish()


def checks(violations: list[Violation]) -> list[str]:
    return [violation.check for violation in violations]


def test_equal_stores_agree_and_so_does_one_that_was_restored_while_another_goes_on() -> None:
    first, second, violations = stores()
    first.apply(BATCH, 5)
    slices = first.snapshot()
    first.apply([put(b"later")], 6)
    assert len([*slices]) > 4
    slices.close()
    second.apply(BATCH, 5)
    restore(second, second.snapshot())
    second.apply([put(b"later")], 6)
    first.look()
    second.look()
    assert violations == []
    assert first.commands == second.commands == 33
    assert first.revision == second.revision == 32


@pytest.mark.parametrize(("batch", "time_ms"), [([*BATCH[:-1], compact(9)], 5), (BATCH, 6)], ids=["commands", "time"])
def test_other_commands_or_another_time_are_seen(batch: list[bytes], time_ms: int) -> None:
    first, second, violations = stores()
    first.apply(BATCH, 5)
    second.apply(batch, time_ms)
    assert checks(violations) == ["state machine agreement"]


def test_another_state_is_seen_where_it_is_looked_at() -> None:
    first, second, violations = stores()
    for store in (first, second):
        store.apply(BATCH, 5)
    second._keyspace.put(b"0", b"y", 7, second.revision)
    first.look()
    second.look()
    assert checks(violations) == ["state machine agreement"]


def test_what_goes_back_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    first, _, violations = stores()
    first.apply(BATCH[:5], 5)
    first.apply(BATCH[5:6], 4)
    assert checks(violations) == ["time order"]
    apply = Store.apply

    def forgetful(self: Store, commands: Sequence[bytes], time_ms: int) -> list[Result]:
        results = apply(self, commands, time_ms)
        self.revision -= 3
        return results

    monkeypatch.setattr(Store, "apply", forgetful)
    first.apply([put(b"k")], 5)
    assert checks(violations) == ["time order", "revision order"]


def test_a_snapshot_that_takes_a_store_back_is_seen() -> None:
    first, second, violations = stores()
    first.apply(BATCH, 5)
    second.apply(BATCH, 5)
    second.apply([put(b"k")], 6)
    restore(second, first.snapshot())
    assert checks(violations) == ["revision order"]


def test_a_key_that_hangs_on_no_lease_is_seen() -> None:
    first, _, violations = stores()
    first.apply(BATCH, 5)
    first.leases[7].keys.discard(b"3")
    first.look()
    first.leases[7].keys.update((b"3", b"other"))
    first.look()
    assert checks(violations) == ["attached keys", "attached keys", "state machine agreement"]
    assert first.range(RangeRequest(key=b"3")).error is None


def test_a_snapshot_without_its_number_of_commands_is_refused() -> None:
    first, second, _ = stores()
    first.apply(BATCH, 5)
    with pytest.raises(ValueError, match="number of commands"):
        restore(second, Store.snapshot(first))
