"""The index of ranges against a list of them that is searched from end to end."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.services.etcd.watching.index import NO_END, SINGLE, RangeIndex, prefix_end

KEYS = st.text("ab\xff", min_size=1, max_size=4).map(lambda text: text.encode("latin-1"))
ENDS = st.one_of(st.just(SINGLE), st.just(NO_END), KEYS)
RANGES = st.one_of(
    st.tuples(KEYS, ENDS),
    KEYS.map(lambda key: (key, prefix_end(key))),
    st.just((b"\0", NO_END)),
)


def contains(bounds: tuple[bytes, bytes], key: bytes) -> bool:
    start, end = bounds
    return key == start if end == SINGLE else start <= key and (end == NO_END or key < end)


@given(st.lists(RANGES, max_size=30), st.lists(st.integers(0, 29), max_size=30), st.lists(KEYS, min_size=1))
def test_it_finds_what_a_search_through_all_finds(
    ranges: list[tuple[bytes, bytes]], removed: list[int], keys: list[bytes]
) -> None:
    index: RangeIndex[int] = RangeIndex()
    there = dict(enumerate(ranges))
    for number, (start, end) in there.items():
        index.add(start, end, number)
    for number in removed:
        if number in there:
            index.remove(*there.pop(number), number)
    for key in keys:
        assert sorted(index.find(key)) == [number for number, bounds in there.items() if contains(bounds, key)]
    for number, (start, end) in there.items():
        index.remove(start, end, number)
    assert not index.has_ranges
    assert not any(index.find(key) for key in keys)


def test_it_finds_among_many_ranges_that_are_no_prefixes() -> None:
    draw = random.Random(5)
    index: RangeIndex[int] = RangeIndex()
    there = {}
    for number in range(3_000):
        start = draw.randrange(10_000)
        end = start + draw.randrange(1, 300)
        there[number] = (b"%06d" % start, NO_END if draw.random() < 0.01 else b"%06d-" % end)
        index.add(*there[number], number)
    for number in draw.sample(sorted(there), 1_500):
        index.remove(*there.pop(number), number)
    for _ in range(200):
        key = b"%06d" % draw.randrange(10_500)
        assert sorted(index.find(key)) == [number for number, bounds in there.items() if contains(bounds, key)]


class CountedKey(bytes):
    """Counts what is cut from it."""

    cuts = 0
    cut_bytes = 0

    def __getitem__(self, place: Any) -> Any:
        cut = bytes.__getitem__(self, place)
        CountedKey.cuts += 1
        CountedKey.cut_bytes += len(cut)
        return cut


def test_an_event_looks_at_few_lengths_however_many_there_are() -> None:
    """20,000 watches of prefixes that all differ in length: each event took 0.1 s."""
    index: RangeIndex[int] = RangeIndex()
    # Long ones first.
    for length in range(2_000, 0, -1):
        index.add(b"a" * length, b"a" * (length - 1) + b"b", length)
    index.add(b"\0", NO_END, 0)
    CountedKey.cuts = CountedKey.cut_bytes = 0
    assert list(index.find(CountedKey(b"b" * 3_000))) == [0]
    assert 0 < CountedKey.cuts <= 65
    assert CountedKey.cut_bytes <= 64 << 10
    assert sorted(index.find(b"a" * 1_500 + b"b")) == list(range(1_501))


def test_it_finds_among_prefixes_of_many_lengths() -> None:
    """More lengths than are looked at: they come and go, so a prefix is now here, now there."""
    draw = random.Random(6)
    index: RangeIndex[int] = RangeIndex()
    there: dict[int, tuple[bytes, bytes]] = {}
    for number in range(6_000):
        # Fewer and more in turns.
        if there and draw.random() < (0.3 if number // 500 % 2 else 0.7):
            gone = draw.choice(list(there))
            index.remove(*there.pop(gone), gone)
        else:
            prefix = b"a" * draw.randrange(1, 150) + draw.choice((b"", b"b", b"\xff"))
            there[number] = draw.choice(((prefix, prefix_end(prefix)), (b"\0", NO_END), (prefix, NO_END)))
            index.add(*there[number], number)
        if number % 10 == 0:
            key = b"a" * draw.randrange(1, 160) + draw.choice((b"", b"b", b"\xff"))
            assert sorted(index.find(key)) == [n for n, bounds in sorted(there.items()) if contains(bounds, key)]
    for number, bounds in there.items():
        index.remove(*bounds, number)
    assert not index.has_ranges


def test_all_keys_are_one_range_whenever_it_came() -> None:
    index: RangeIndex[int] = RangeIndex()
    for length in range(1, 100):
        index.add(b"a" * length, b"a" * (length - 1) + b"b", length)
    index.add(b"\0", NO_END, 100)
    for length in range(1, 100):
        index.remove(b"a" * length, b"a" * (length - 1) + b"b", length)
    index.add(b"\0", NO_END, 101)
    assert sorted(index.find(b"k")) == [100, 101]
    index.remove(b"\0", NO_END, 100)
    assert list(index.find(b"k")) == [101]


@pytest.mark.parametrize(
    ("prefix", "end"), [(b"a", b"b"), (b"a\xff", b"b"), (b"\xff", NO_END), (b"", NO_END), (b"a\xfe\xff", b"a\xff")]
)
def test_the_end_of_a_prefix(prefix: bytes, end: bytes) -> None:
    assert prefix_end(prefix) == end
