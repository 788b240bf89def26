"""Putting away what is damaged: nothing of it is lost, and nothing of it is used again by accident.

    folder = set_aside(disk, "log/0000000000000002.segment at offset 4096: ...")    # "damaged-1"

The log, the snapshots and the identity of the data folder move into `damaged-N/`, with the
reason in `damaged-N/WHY.txt`.  What is left is a folder without any state: the node comes
back as one that has to be let in and refilled.

A crash in the middle leaves a folder that `Identity.load` calls damaged, so that the next
start comes here again and finishes (see `moves`).  Never does a part of the old state pass
for the whole, such as a log without its last segments, or an old log under a new identity.

Nothing is ever deleted: what was set aside may be needed by `quorate recover`.  Whoever
calls says in its log where it is.
"""

from __future__ import annotations

from quorate.storage.disk import Disk
from quorate.storage.identity import FILE_NAME, DamagedIdentity, IdentityMismatch, UnfinishedRecovery, read_identity
from quorate.storage.moves import (
    DamagedMoves,
    Moves,
    Purpose,
    begin,
    carry_out,
    next_folder,
    settle_names,
    unfinished_moves,
)

STATE_FOLDERS = ("log", "snapshots")


def set_aside(disk: Disk, why: str) -> str:
    """Move a data folder's state to `damaged-N/`, durably; returns that folder's name.

    Finishes an earlier call that a crash cut off, whose reason then stays.  Raises
    UnfinishedRecovery where `quorate recover` has to be run to its end first, OSError.
    """
    moves = _interrupted(disk)
    if moves is None:
        settle_names(disk, ("", *STATE_FOLDERS))
        folder = next_folder(disk, "damaged")
        moves = Moves(Purpose.SET_ASIDE, folder, why, state_files(disk, STATE_FOLDERS, folder))
        begin(disk, moves)
    carry_out(disk, moves)
    return moves.folder


def was_set_aside(disk: Disk) -> bool:
    """Whether this data folder has lost the state of a member: its node must not pass for one that never was any.

    Where the identity that was set aside says that it belonged to no cluster yet, nothing was lost.
    """
    return any(name.startswith("damaged-") and not _was_no_member(disk, name) for name in disk.list(""))


def _was_no_member(disk: Disk, folder: str) -> bool:
    try:
        return not read_identity(disk, f"{folder}/{FILE_NAME}").cluster_id
    except (OSError, DamagedIdentity, IdentityMismatch):
        return False


def state_files(disk: Disk, folders: tuple[str, ...], target: str) -> tuple[tuple[str, str], ...]:
    """(path, path below `target`) of every file in these folders, and of the identity."""
    paths = [f"{folder}/{name}" for folder in folders for name in disk.list(folder)]
    if disk.exists(FILE_NAME):
        paths.append(FILE_NAME)
    return tuple((path, f"{target}/{path}") for path in paths)


def _interrupted(disk: Disk) -> Moves | None:
    try:
        moves = unfinished_moves(disk)
    except DamagedMoves:
        # Whatever it was to be, all of it goes.
        return None
    if moves is not None and moves.purpose is Purpose.START_OVER:
        raise UnfinishedRecovery(moves.folder)
    return moves
