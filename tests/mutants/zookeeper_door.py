"""Bugs in the ZooKeeper door: watches, replies, and the life of sessions."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Change, Mutant

_CLOCK: Final = "quorate.services.keepalive.clock"
_CONNECTION: Final = "quorate.services.zookeeper.connection"
_DOOR: Final = "quorate.services.zookeeper.door"
_WATCHES: Final = "quorate.services.zookeeper.watches"

MUTANTS: Final = (
    Mutant(
        "fire_watch_late",
        "a watch fires before its client can see the change: the event comes 20 ms behind it",
        (
            Change(
                _DOOR,
                """                        connection.out.append(frame)
                        self.counters.events += 1
                        self.schedule(connection)
""",
                """                        asyncio.get_running_loop().call_later(
                            0.02,
                            lambda late=connection, event=frame: (
                                late.is_served() and (late.out.append(event), self.schedule(late))
                            ),
                        )
                        self.counters.events += 1
""",
            ),
        ),
    ),
    Mutant(
        "delete_fires_no_child_watch_of_node",
        "a watch fires before its client can see the change: who watches the children of a node is not told of its end",
        (
            Change(
                _WATCHES,
                "        also = self._child.take(path)\n",
                "        also: Iterable[W] = ()\n",
            ),
        ),
    ),
    Mutant(
        "reconnect_forgets_missed_change",
        "a watch survives its connection: a change that came between two connections is told to nobody",
        (Change(_WATCHES, "elif zxids[0] > seen_zxid:", "elif False:"),),
    ),
    Mutant(
        "reconnect_forgets_child_watches",
        "a watch survives its connection: those on children are not set again",
        (
            Change(
                _WATCHES,
                """            else:
                self._child.add(path, watcher)
        return missed
""",
                """        return missed
""",
            ),
        ),
    ),
    Mutant(
        "restore_keeps_connections",
        "a watch fires before its client can see the change: what a snapshot brought in one go fired none",
        (
            Change(
                _DOOR,
                """        self._close_for(
            self._connections, "the store was replaced by a snapshot, and their watches have missed what it holds"
        )
""",
                "",
            ),
        ),
    ),
    Mutant(
        "reads_overtake_own_writes",
        "FIFO client order: a read is answered ahead of the writes that its session sent before it",
        (Change(_CONNECTION, "if op == 4 and not in_flight and", "if op == 4 and"),),
    ),
    Mutant(
        "new_leader_expires_sessions_early",
        "a session lives for its timeout: a new leader gives those that it has not heard of yet the grace alone",
        (Change(_CLOCK, "now_ms + timeout_ms + grace_ms", "now_ms + grace_ms"),),
    ),
    Mutant(
        "touches_of_followers_dropped",
        "a session lives as long as its client pings: pings through a follower are confirmed, and not counted",
        (
            Change(
                _DOOR,
                "refused = [session for session in sessions if not self._clock.touch(session, now_ms)]",
                "refused: list[int] = []",
            ),
        ),
    ),
)
