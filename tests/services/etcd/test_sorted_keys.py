"""The sorted set of keys beside a sorted list."""

from __future__ import annotations

import random

import pytest

from quorate.services.etcd import sorted_keys
from quorate.services.etcd.sorted_keys import SortedKeys


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


def check(keys: SortedKeys, expected: list[bytes], randomness: random.Random) -> None:
    assert list(keys) == expected and len(keys) == len(expected)
    start = randomness.randbytes(randomness.randint(0, 2))
    end = randomness.choice([None, randomness.randbytes(1), randomness.randbytes(2)])
    limit = randomness.randint(0, 50)
    inside = [key for key in expected if key >= start and (end is None or key < end)]
    assert keys.count(start, end) == len(inside)
    assert keys.take(start, end, limit) == inside[:limit]
    assert keys.take_last(start, end, limit) == inside[::-1][:limit]
