"""The sorted set of keys beside a sorted list."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd import sorted_keys
from quorate.services.etcd.sorted_keys import SortedKeys
from quorate.services.etcd.store import Store
from tests.services.etcd.store_helpers import apply, command_of


@pytest.mark.parametrize("chunk", [4, 16, 1024])
def test_keys_come_and_go_in_order(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(sorted_keys, "_MAX_CHUNK", chunk)
    monkeypatch.setattr(sorted_keys, "_SMALL_CHUNK", chunk // 4)
    randomness = random.Random(chunk)
    keys = SortedKeys()
    expected: set[bytes] = set()
    for step in range(6000):
        # Grows, then shrinks.
        is_there = randomness.random() < (0.7 if step < 3000 else 0.2)
        key = randomness.randbytes(randomness.randint(0, 2))
        if is_there and key not in expected:
            expected.add(key)
            keys.add(key)
        elif not is_there and expected:
            gone = min((other for other in expected if other >= key), default=min(expected))
            expected.remove(gone)
            keys.remove(gone)
        if step % 20 == 0:
            check(keys, sorted(expected), randomness)


@pytest.mark.parametrize("few", [0, 3])
@pytest.mark.parametrize("chunk", [4, 16, 64])
def test_many_keys_come_and_go_at_once(monkeypatch: pytest.MonkeyPatch, chunk: int, few: int) -> None:
    """Ranges, scattered keys, all of them, none; to both ends and in between."""
    monkeypatch.setattr(sorted_keys, "_MAX_CHUNK", chunk)
    monkeypatch.setattr(sorted_keys, "_SMALL_CHUNK", chunk // 4)
    monkeypatch.setattr(sorted_keys, "_FEW", few)
    randomness = random.Random(chunk + few)
    possible = [bytes((high, low)) for high in range(20) for low in range(20)]
    keys = SortedKeys()
    expected: set[bytes] = set()
    for _ in range(300):
        start, stop = sorted(randomness.choices(range(len(possible) + 1), k=2))
        share = randomness.choice([0.05, 0.5, 1])
        chosen = [key for key in possible[start:stop] if randomness.random() <= share]
        if randomness.random() < 0.5:
            keys.add_all([key for key in chosen if key not in expected])
            expected.update(chosen)
        else:
            keys.remove_all([key for key in chosen if key in expected])
            expected.difference_update(chosen)
        check(keys, sorted(expected), randomness)
        lone = randomness.choice(possible)
        if lone not in expected:
            keys.add(lone)
            expected.add(lone)
        check(keys, sorted(expected), randomness)


def test_a_range_comes_and_goes_by_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not key by key: a deletion of a large range is one step of the store."""
    searches = 0

    def counted(search: Callable[..., Any]) -> Callable[..., Any]:
        def count(*arguments: Any) -> Any:
            nonlocal searches
            searches += 1
            return search(*arguments)

        return count

    for name in ("bisect_left", "bisect_right", "insort"):
        monkeypatch.setattr(sorted_keys, name, counted(getattr(sorted_keys, name)))
    store = Store()
    store.apply([command_of(pb.PutRequest(key=b"%05d" % number)) for number in range(20_000)], 1)
    searches = 0
    assert apply(store, pb.DeleteRangeRequest(key=b"\0", range_end=b"\0")).deleted == 20_000
    assert searches < 500
    assert store.summary()["keys"] == 0


def check(keys: SortedKeys, expected: list[bytes], randomness: random.Random) -> None:
    assert list(keys) == expected and len(keys) == len(expected)
    start = randomness.randbytes(randomness.randint(0, 2))
    end = randomness.choice([None, randomness.randbytes(1), randomness.randbytes(2)])
    limit = randomness.randint(0, 50)
    inside = [key for key in expected if key >= start and (end is None or key < end)]
    assert keys.count(start, end) == len(inside)
    assert keys.take(start, end, limit) == inside[:limit]
    assert keys.take_last(start, end, limit) == inside[::-1][:limit]
