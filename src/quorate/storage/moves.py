"""Several renames as one: a data folder's state is put away, or replaced, wholly or not at all.

No order of single renames is safe.  While a log is moved file by file, what is left after a
crash can look like a shorter but sound log, and a power loss keeps any subset of renames
that were not synced.  So what is to be done is first written to `unfinished.json`, durably:
from then on the folder is nobody's (`Identity.load` refuses it) until `carry_out`, called
again after any crash, has done all of it and removed that file.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec
from google_crc32c import value

from quorate.storage.disk import Disk

UNFINISHED: Final = "unfinished.json"
REASON_NAME: Final = "WHY.txt"


class DamagedMoves(Exception):
    """`unfinished.json` cannot be read back as it was written."""


class Purpose(StrEnum):
    SET_ASIDE = "set-aside"
    START_OVER = "start-over"


class Moves(msgspec.Struct, frozen=True):
    """Paths are relative to the data folder.  Each pair is (source, target), both of them files."""

    purpose: Purpose
    folder: str
    """Where the old files go, with the reason in WHY.txt."""
    why: str
    away: tuple[tuple[str, str], ...]
    into: tuple[tuple[str, str], ...] = ()
    """New files for the places of the old ones: moved only once the names of `away` are durable."""


class _File(msgspec.Struct, frozen=True):
    crc32c: int
    moves: msgspec.Raw


def unfinished_moves(disk: Disk) -> Moves | None:
    """What a crash interrupted.  Raises DamagedMoves, OSError."""
    if not disk.exists(UNFINISHED):
        return None
    try:
        file = msgspec.json.decode(disk.read(UNFINISHED), type=_File)
        moves = msgspec.json.decode(file.moves, type=Moves)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedMoves(f"{UNFINISHED} is damaged: {error}") from error
    if value(msgspec.json.encode(moves)) != file.crc32c:
        raise DamagedMoves(f"{UNFINISHED} is damaged: its checksum is wrong (was it edited?)")
    return moves


def begin(disk: Disk, moves: Moves) -> None:
    """Write down what is to be done: once this returns it will be.  Raises OSError: nothing has changed then."""
    encoded = msgspec.json.encode(moves)
    data = msgspec.json.format(msgspec.json.encode(_File(value(encoded), msgspec.Raw(encoded)))) + b"\n"
    replace_file(disk, UNFINISHED, data)


def carry_out(disk: Disk, moves: Moves) -> None:
    """Do what `begin` wrote down, or the rest of it.  Raises OSError: call it again then."""
    # A process that was killed may have given the file its name without syncing that.
    disk.sync_folder("")
    _move_all(disk, moves.away)
    if moves.into:
        # From now on a file in an old place is a new one: a second start must not put it away.
        begin(disk, msgspec.structs.replace(moves, away=()))
        _move_all(disk, moves.into)
    disk.make_folder(moves.folder)
    replace_file(disk, f"{moves.folder}/{REASON_NAME}", moves.why.rstrip().encode() + b"\n")
    disk.remove(UNFINISHED)
    disk.sync_folder("")


def replace_file(disk: Disk, path: str, data: bytes) -> None:
    """Write a small file that is afterwards, whatever happens, either the old one or the new one.  Raises OSError."""
    partial = f"{path}.partial"
    file = disk.open(partial, create=True)
    try:
        file.truncate(0)
        file.write_at(0, data)
        file.sync()
    finally:
        file.close()
    disk.rename(partial, path)
    disk.sync_folder(_folder_of(path))


def settle_names(disk: Disk, folders: tuple[str, ...]) -> None:
    """Let no removal or rename of an earlier process be undone by a power loss later on.  Raises OSError."""
    for folder in folders:
        if disk.exists(folder):
            disk.sync_folder(folder)


def next_folder(disk: Disk, kind: str) -> str:
    """`kind-N` with the lowest N that is above all those used."""
    numbers = [name.removeprefix(f"{kind}-") for name in disk.list("") if name.startswith(f"{kind}-")]
    return f"{kind}-{1 + max((int(number) for number in numbers if number.isdecimal()), default=0)}"


def _move_all(disk: Disk, pairs: tuple[tuple[str, str], ...]) -> None:
    sources = dict.fromkeys(_folder_of(source) for source, _ in pairs)
    targets = dict.fromkeys(_folder_of(target) for _, target in pairs)
    for folder in targets:
        if folder:
            disk.make_folder(folder)
    for source, target in pairs:
        if disk.exists(source):
            disk.rename(source, target)
    # A file must have its new name durably before it loses the old one.
    for folder in (*targets, *(folder for folder in sources if folder not in targets)):
        if disk.exists(folder):
            disk.sync_folder(folder)


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0]
