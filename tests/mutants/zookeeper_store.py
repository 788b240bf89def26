"""Bugs in the ZooKeeper store: its tree, its table of sessions, its snapshots."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Change, Mutant

_MULTI: Final = "quorate.services.zookeeper.multi"
_SNAPSHOT: Final = "quorate.services.zookeeper.snapshot"
_STORE: Final = "quorate.services.zookeeper.store"
_TREE: Final = "quorate.services.zookeeper.tree"

MUTANTS: Final = (
    Mutant(
        "lose_session_table_in_snapshot",
        "sessions survive restarts: who restores a snapshot knows none, and is another state machine from then on",
        (Change(_STORE, "SnapshotWriter(self.tree, list(self.sessions.values()),", "SnapshotWriter(self.tree, [],"),),
    ),
    Mutant(
        "snapshot_forgets_ephemerals",
        "ephemerals vanish with their session: who restored a snapshot does not know whose they are",
        (
            Change(
                _SNAPSHOT,
                """        self._ephemerals.setdefault(owner, set()).add(path)
""",
                """        self._ephemerals.setdefault(owner, set())
""",
            ),
        ),
    ),
    Mutant(
        "snapshot_forgets_zxid",
        "zxids only grow: who restores a snapshot counts on from where it stood before",
        (
            Change(
                _STORE,
                """        self.zxid = loaded.zxid
""",
                "",
            ),
        ),
    ),
    Mutant(
        "snapshot_overlay_not_recorded",
        "a snapshot is of one position: what changes while it is written gets into it, and is applied again behind it",
        (
            Change(
                _TREE,
                "if overlay is not None and path not in overlay and node.stat[:8] <= self._overlay_zxid:",
                'if overlay is not None and path not in overlay and path == b"/":',
            ),
        ),
    ),
    Mutant(
        "ephemeral_outlives_session",
        "ephemerals vanish exactly with their session: one of them stays",
        (
            Change(
                _STORE,
                "for path in sorted(self.tree.ephemerals.get(session_id, ())):",
                "for path in sorted(self.tree.ephemerals.get(session_id, ()))[1:]:",
            ),
        ),
    ),
    Mutant(
        "ephemeral_end_fires_no_events",
        "a watch fires before its client can see the change: of ephemerals that go with their session nobody is told",
        (
            Change(
                _STORE,
                """            events.extend(result[3])
        events.append""",
                "        events.append",
            ),
        ),
    ),
    Mutant(
        "create_after_session_end",
        "ephemerals vanish exactly with their session: a create that was on its way makes one for none",
        (
            Change(
                _STORE,
                "if session is None:\n                results",
                "if _is_gone(session, op):\n                results",
            ),
            Change(
                _STORE,
                "elif session.generation != generation:",
                "elif session is not None and session.generation != generation:",
            ),
            Change(
                _STORE,
                """Handler = Callable[""",
                """def _is_gone(session: Session | None, op: int) -> bool:
    return session is None and op not in (Op.CREATE, Op.CREATE2)


Handler = Callable[""",
            ),
        ),
    ),
    Mutant(
        "former_owner_still_writes",
        "FIFO client order: what a session sent through its former node takes effect behind what it did since",
        (Change(_STORE, "elif session.generation != generation:", "elif False:"),),
    ),
    Mutant(
        "version_check_skipped",
        "compare and set: a set whose expected version is older than the znode's succeeds, and an update is lost",
        (
            Change(
                _TREE,
                "if expected_version != version and expected_version != -1:",
                "if expected_version > version:",
            ),
        ),
    ),
    Mutant(
        "multi_not_atomic",
        "a multi does all or nothing: what came before the operation that failed stays done",
        (Change(_MULTI, "tree.stop_undo(take_back=failed)", "tree.stop_undo(take_back=False)"),),
    ),
    Mutant(
        "multi_check_ignored",
        "a multi does all or nothing: a check of a version that is another one stops nothing",
        (
            Change(
                _MULTI,
                "return tree.check(path, number, zxid)",
                'return (0, zxid, b"", ())',
            ),
        ),
    ),
    Mutant(
        "sequential_counter_reused",
        "sequential names only grow: a number that is free again is given again, to whoever queues",
        (Change(_TREE, "creates = ((cversion + count) & 0xFFFFFFFF) >> 1", "creates = count"),),
    ),
    Mutant(
        "delete_fires_no_child_watch",
        "a watch fires before its client can see the change: who watches children is not told of one that went",
        (
            Change(
                _TREE,
                'return (_OK, zxid, b"", ((_DELETED, path), (_CHILDREN_CHANGED, parent_path)))',
                'return (_OK, zxid, b"", ((_DELETED, path),))',
            ),
        ),
    ),
)
