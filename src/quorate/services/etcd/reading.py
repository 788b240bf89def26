"""Ranges: what a RangeRequest finds, as etcd 3.4 answers it.

`count` is of all keys of the range at that revision, whatever limit and filters leave of them; `more` says that the
limit cut something off.  A page of the past is found from the present and the changes since, where those are few.  A
sort order other than by key leaves keys that are alike in the order of keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final
from zlib import crc32

from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.answer_room import AnswerRoom
from quorate.services.etcd.encoding import bytes_field, integer_field
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.keyspace import SHARDS, Keyspace
from quorate.services.etcd.versions import Version, encode_key_value, encode_without_value

_SORT_KEYS: Final[Mapping[int, Callable[[Version], Any]]] = MappingProxyType(
    {
        pb.RangeRequest.KEY: attrgetter("key"),
        pb.RangeRequest.VERSION: attrgetter("version"),
        pb.RangeRequest.CREATE: attrgetter("create_revision"),
        pb.RangeRequest.MOD: attrgetter("mod_revision"),
        pb.RangeRequest.VALUE: attrgetter("value"),
    }
)


def end_of(range_end: bytes) -> bytes | None:
    """A request's `range_end`, not empty, as the end of a range; None is no end."""
    return None if range_end == b"\0" else range_end


def revision_error(revision: int, current_revision: int, compacted_revision: int) -> EtcdError | None:
    """Whether a revision that was asked for can be read; 0 or less is the present."""
    if revision > current_revision:
        return EtcdError.FUTURE_REVISION
    if 0 < revision < compacted_revision:
        return EtcdError.COMPACTED
    return None


def present(keyspace: Keyspace, key: bytes, range_end: bytes) -> list[Version]:
    """All that is there now of a key (`range_end` empty) or of a range, by key."""
    if not range_end:
        version = keyspace.latest(key)
        return [] if version is None else [version]
    return _latest(keyspace, keyspace.live.take(key, end_of(range_end), len(keyspace.live)))


def read_range(
    keyspace: Keyspace, request: pb.RangeRequest, current_revision: int, room: AnswerRoom | None = None
) -> list[bytes]:
    """The response's fields but for its header.  The revision was checked (`revision_error`).

    Raises AnswerTooLarge where there is a `room` that it does not fit in.
    """
    versions, count = _find(keyspace, request, current_revision, room)
    if request.count_only:
        return [integer_field(4, count)]
    limit = request.limit
    if limit > 0 and request.sort_order == pb.RangeRequest.NONE and not _has_filter(request):
        # etcd looks no further where no order is asked for, though by another target than the key it sorts these.
        del versions[limit + 1 :]
    versions = _sort(_filter(versions, request), request)
    more = 0 < limit < (count if _is_plain(request) else len(versions))
    if more:
        del versions[limit:]
    if room is not None:
        (room.hold_keys if request.keys_only else room.hold)(versions)
    encode = encode_without_value if request.keys_only else encode_key_value
    fields = [bytes_field(2, encode(version)) for version in versions]
    fields += integer_field(3, more), integer_field(4, count)
    return fields


def _is_plain(request: pb.RangeRequest) -> bool:
    """In the order of keys or the reverse, and nothing filtered: the limit says how many are looked up."""
    return request.sort_target == pb.RangeRequest.KEY and not _has_filter(request)


def _has_filter(request: pb.RangeRequest) -> bool:
    return bool(
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def _find(
    keyspace: Keyspace, request: pb.RangeRequest, current_revision: int, room: AnswerRoom | None
) -> tuple[list[Version], int]:
    """(what may be in the answer, at least as much as the limit leaves of it; number of keys in the range)"""
    key, range_end, revision = request.key, request.range_end, request.revision
    is_present = revision <= 0 or revision == current_revision
    if not range_end:
        version = keyspace.latest(key) if is_present else keyspace.at(key, revision)
        return ([], 0) if version is None else ([version], 1)
    end = end_of(range_end)
    count = keyspace.live.count(key, end)
    if not is_present:
        changes = keyspace.history.count_since(revision + 1)
        known = count + keyspace.tombs.count(key, end)
        if changes < known:
            return _find_past(keyspace, request, changes, room)
        if room is not None:
            room.look_at(known)
        found = (keyspace.at(known_key, revision) for known_key in keyspace.known(key, end))
        versions = [version for version in found if version is not None]
        return versions, len(versions)
    if request.count_only:
        return [], count
    limit = _most_looked_up(request, count)
    if room is not None:
        room.look_at(limit)
    if request.sort_order == pb.RangeRequest.DESCEND:
        keys = keyspace.live.take_last(key, end, limit)
        keys.reverse()
    else:
        keys = keyspace.live.take(key, end, limit)
    return _latest(keyspace, keys), count


def _most_looked_up(request: pb.RangeRequest, count: int) -> int:
    """Of so many keys."""
    return min(request.limit, count) if request.limit > 0 and _is_plain(request) else count


def _find_past(
    keyspace: Keyspace, request: pb.RangeRequest, changes: int, room: AnswerRoom | None
) -> tuple[list[Version], int]:
    """As `_find`, of a range at an older revision, with so many changes since: those tell what was otherwise then."""
    start, end, revision = request.key, end_of(request.range_end), request.revision
    if room is not None:
        room.look_at(changes)
    was_there: dict[bytes, bool] = {}
    for change in keyspace.history.since(revision + 1):
        key = change.key
        # Its first change says it: the put of a first version is of a key that was not there.
        if key >= start and (end is None or key < end) and key not in was_there:
            was_there[key] = change.version != 1
    gone = [key for key, was in was_there.items() if was and keyspace.latest(key) is None]
    new = {key for key, was in was_there.items() if not was and keyspace.latest(key) is not None}
    count = keyspace.live.count(start, end) + len(gone) - len(new)
    if request.count_only:
        return [], count
    limit = _most_looked_up(request, count)
    if room is not None:
        room.look_at(limit)
    is_descending = request.sort_order == pb.RangeRequest.DESCEND
    take = keyspace.live.take_last if is_descending else keyspace.live.take
    # However many of them are new: as many of the others are among these as are asked for.
    keys = gone + [key for key in take(start, end, limit + len(new)) if key not in new]
    keys.sort()
    keys = keys[max(len(keys) - limit, 0) :] if is_descending else keys[:limit]
    found = (keyspace.at(key, revision) for key in keys)
    return [version for version in found if version is not None], count


def _latest(keyspace: Keyspace, keys: list[bytes]) -> list[Version]:
    """Of keys that are there."""
    shards = keyspace.shards
    return [shards[crc32(key) & (SHARDS - 1)][key] for key in keys]


def _filter(versions: list[Version], request: pb.RangeRequest) -> list[Version]:
    if bound := request.max_mod_revision:
        versions = [version for version in versions if version.mod_revision <= bound]
    if bound := request.min_mod_revision:
        versions = [version for version in versions if version.mod_revision >= bound]
    if bound := request.max_create_revision:
        versions = [version for version in versions if version.create_revision <= bound]
    if bound := request.min_create_revision:
        versions = [version for version in versions if version.create_revision >= bound]
    return versions


def _sort(versions: list[Version], request: pb.RangeRequest) -> list[Version]:
    order, target = request.sort_order, request.sort_target
    if target != pb.RangeRequest.KEY and order == pb.RangeRequest.NONE:
        order = pb.RangeRequest.ASCEND
    sort_key = _SORT_KEYS.get(target)
    if sort_key is not None and order in (pb.RangeRequest.ASCEND, pb.RangeRequest.DESCEND):
        versions.sort(key=sort_key, reverse=order == pb.RangeRequest.DESCEND)
    return versions
