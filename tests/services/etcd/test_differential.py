"""Random requests to a real etcd and to Quorate: the same answers, errors, revisions and events.

    ETCD_DIFFERENTIAL_SECONDS=600 pytest tests/services/etcd/test_differential.py   as long as one likes
    ETCD_DIFFERENTIAL_SEED=7 pytest ...                                             from that seed on

A difference is printed with as few steps as show it.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from quorate.services.etcd import etcd_pb2 as pb
from tests.services.etcd.differential import Difference, Run, Server, Step, shrink
from tests.services.etcd.peer import Peer

SECONDS = float(os.environ.get("ETCD_DIFFERENTIAL_SECONDS", "0"))
SEED = int(os.environ.get("ETCD_DIFFERENTIAL_SEED", "1"))
SEQUENCES = 30
STEPS = 120

KEYS = (b"a", b"b", b"b\0", b"ba", b"c", b"\xff")
ENDS = (b"", b"", b"\0", b"b", b"c", b"d", b"a", b"\xff\xff")
VALUES = (b"", b"1", b"2", b"10", b"\0\xff")
GIVEN_LEASES = (7, 8, 9)
ANY_LEASE = (0, 0, 0, *GIVEN_LEASES, -1, -2, 1234)
"""None, those that are granted by id, the first two whose id the server draws, one that never is."""


class Draw:
    """Draws requests that conflict: few keys, few leases, revisions around the present one."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.revision = 1
        self.may_delete = True
        """A put that keeps the value of a key which its own transaction has deleted crashes etcd 3.4."""

    def some(self, probability: float) -> bool:
        return self.chance.random() < probability

    def key(self) -> bytes:
        return b"" if self.some(0.01) else self.chance.choice(KEYS)

    def keys(self) -> dict[str, Any]:
        if self.some(0.05):
            return {"key": b"\0", "range_end": b"\0"}
        return {"key": self.key(), "range_end": self.chance.choice(ENDS)}

    def any_revision(self) -> int:
        """Mostly of the recent past; sometimes none, of the future, or negative."""
        if self.some(0.06):
            return self.chance.choice([-1, self.revision + 1, self.revision + 5])
        return max(0, self.revision - self.chance.randrange(25))

    def put(self, keeps: bool = True) -> pb.PutRequest:
        """`keeps`: it may keep the value or lease that is there."""
        return pb.PutRequest(
            key=self.key(),
            value=b"" if self.some(0.2) else self.chance.choice(VALUES),
            lease=0 if self.some(0.8) else self.chance.choice(ANY_LEASE),
            prev_kv=self.some(0.3),
            ignore_value=keeps and self.some(0.04),
            ignore_lease=keeps and self.some(0.04),
        )

    def range(self) -> pb.RangeRequest:
        request = pb.RangeRequest(
            **self.keys(),
            revision=0 if self.some(0.5) else self.any_revision(),
            limit=self.chance.choice([0, 0, 0, 1, 2, 4, -1]),
            sort_order=self.chance.choice(pb.RangeRequest.SortOrder.keys()),
            sort_target=self.chance.choice(pb.RangeRequest.SortTarget.keys()),
            serializable=self.some(0.2),
            keys_only=self.some(0.1),
            count_only=self.some(0.1),
        )
        for name in ("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"):
            if self.some(0.08):
                setattr(request, name, self.any_revision())
        return request

    def delete(self) -> pb.DeleteRangeRequest:
        return pb.DeleteRangeRequest(**self.keys(), prev_kv=self.some(0.4))

    def compare(self) -> pb.Compare:
        compare = pb.Compare(
            result=self.chance.choice(pb.Compare.CompareResult.keys()),
            target=self.chance.choice(pb.Compare.CompareTarget.keys()),
            key=self.key(),
            range_end=self.chance.choice([b"", b"", *ENDS]),
        )
        match "none" if self.some(0.05) else compare.target:
            case pb.Compare.VERSION:
                compare.version = self.chance.choice([0, 0, 1, 2, 3])
            case pb.Compare.CREATE:
                compare.create_revision = self.any_revision()
            case pb.Compare.MOD:
                compare.mod_revision = self.any_revision()
            case pb.Compare.VALUE:
                compare.value = self.chance.choice(VALUES)
            case pb.Compare.LEASE:
                compare.lease = self.chance.choice(ANY_LEASE)
                if compare.lease < 0 and compare.result in (pb.Compare.GREATER, pb.Compare.LESS):
                    # Which of two drawn ids is the greater is chance.
                    compare.result = pb.Compare.EQUAL
        return compare

    def operation(self, depth: int) -> pb.RequestOp:
        match self.chance.randrange(8 if depth < 3 else 7):
            case 0 | 1 | 2:
                return pb.RequestOp(request_put=self.put(keeps=not self.may_delete))
            case 3 | 4:
                return pb.RequestOp(request_range=self.range())
            case 5 | 6 if self.may_delete:
                return pb.RequestOp(request_delete_range=self.delete())
            case 5 | 6:
                return pb.RequestOp(request_range=self.range())
            case _:
                return pb.RequestOp(request_txn=self.txn(depth + 1))

    def txn(self, depth: int = 1) -> pb.TxnRequest:
        if depth == 1:
            self.may_delete = self.some(0.8)
        branches = [[self.operation(depth) for _ in range(self.chance.randrange(4))] for _ in range(2)]
        return pb.TxnRequest(
            compare=[self.compare() for _ in range(self.chance.choice([0, 1, 1, 2, 3]))],
            success=branches[0],
            failure=branches[1],
        )

    def compact(self) -> pb.CompactionRequest:
        revision = self.revision + 1 if self.some(0.1) else max(-1, self.revision - self.chance.randrange(20))
        return pb.CompactionRequest(revision=revision, physical=self.some(0.3))

    def grant(self) -> pb.LeaseGrantRequest:
        # No lease may end while the steps run: how long that takes is not the same on both.
        ttl_s = self.chance.choice([600, 601, 9_000_000_001])
        return pb.LeaseGrantRequest(ID=self.chance.choice([0, *GIVEN_LEASES]), TTL=ttl_s)

    def revoke(self) -> pb.LeaseRevokeRequest:
        return pb.LeaseRevokeRequest(ID=self.chance.choice(ANY_LEASE))

    def time_to_live(self) -> pb.LeaseTimeToLiveRequest:
        return pb.LeaseTimeToLiveRequest(ID=self.chance.choice(ANY_LEASE), keys=self.some(0.7))

    def leases(self) -> pb.LeaseLeasesRequest:
        return pb.LeaseLeasesRequest()

    def watch(self) -> pb.WatchRequest:
        create = pb.WatchCreateRequest(
            **self.keys(),
            start_revision=0 if self.some(0.4) else self.any_revision(),
            filters=self.chance.choices(pb.WatchCreateRequest.FilterType.keys(), k=2) if self.some(0.3) else [],
            prev_kv=self.some(0.4),
            fragment=self.some(0.2),
            progress_notify=self.some(0.2),
            watch_id=0 if self.some(0.8) else self.chance.randrange(1, 5),
        )
        return pb.WatchRequest(create_request=create)

    def cancel(self) -> pb.WatchRequest:
        return pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=self.chance.randrange(6)))

    def step(self) -> Step:
        kinds: list[tuple[int, Callable[[], object]]] = [
            *((30, self.put), (20, self.range), (10, self.delete), (25, self.txn), (2, self.compact)),
            *((8, self.grant), (2, self.revoke), (3, self.time_to_live), (1, self.leases)),
            *((4, self.watch), (1, self.cancel)),
        ]
        [kind] = self.chance.choices([kind for _, kind in kinds], [weight for weight, _ in kinds])
        return Step(kind())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def servers(etcd: Peer, quorate: Peer) -> Iterator[list[Server]]:
    with (
        Server("etcd", etcd.endpoints[0]) as theirs,
        Server(quorate.name, quorate.endpoints[0]) as ours,
    ):
        yield [theirs, ours]


def random_sequence(servers: list[Server], seed: int) -> tuple[list[Step], Difference | None]:
    """Draw and run a sequence; later steps are drawn around the revision that the earlier ones led to."""
    draw = Draw(random.Random(seed))
    steps: list[Step] = []
    try:
        with Run(servers) as run:
            for _ in range(STEPS):
                steps.append(draw.step())
                run.take(steps[-1])
                draw.revision = run.revision
            run.compare_watches()
    except Difference as difference:
        return steps, difference
    return steps, None


def report(seed: int, steps: list[Step], difference: Difference) -> str:
    lines = [f"{number:>3}  {step}" for number, step in enumerate(steps, 1)]
    return "\n".join([f"from seed {seed}, after step {difference.index + 1}:", *lines, str(difference)])


@pytest.mark.processes
@pytest.mark.timeout(max(300, 2 * SECONDS))
def test_random_requests_are_answered_as_etcd_answers_them(servers: list[Server]) -> None:
    until_s = time.monotonic() + SECONDS
    for seed in itertools.count(SEED):
        if seed >= SEED + SEQUENCES and time.monotonic() >= until_s:
            break
        steps, difference = random_sequence(servers, seed)
        if difference is not None:
            pytest.fail(report(seed, *shrink(servers, steps, difference)), pytrace=False)
