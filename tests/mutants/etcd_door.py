"""Bugs in the etcd door: reads, answers, watches, leases."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Change, Mutant

_CLOCK: Final = "quorate.services.keepalive.clock"
_KEEP_ALIVE: Final = "quorate.services.etcd.leases.keepalive"
_KEEPER: Final = "quorate.services.etcd.leases.keeper"
_READS: Final = "quorate.services.etcd.reads"
_SUBMISSIONS: Final = "quorate.services.etcd.submissions"
_WATCHES: Final = "quorate.services.etcd.watching.watches"


def _etcd(name: str, breaks: str, *changes: Change) -> Mutant:
    return Mutant(name, breaks, changes, "etcd")


MUTANTS: Final = (
    _etcd(
        "linearizable_read_without_barrier",
        "a read is not older than what was shown before: it is of whatever this node has applied",
        Change(_READS, "self._group.barrier(partial(self._came, round_))", "partial(self._came, round_)(True)"),
    ),
    _etcd(
        "failed_read_barrier_ignored",
        "a read waits for a leader that surely leads: where that could not be found out it is answered all the same",
        Change(
            _READS, "        if passed:\n            self._answer_all", "        if True:\n            self._answer_all"
        ),
    ),
    _etcd(
        "unknown_outcome_told_as_refused",
        "what is called not done was not done: what was under way when a leader was lost is called so, and may be done",
        Change(
            _SUBMISSIONS,
            "EtcdError.TIMEOUT_LEADER_FAILED if changed else EtcdError.TIMEOUT_CONNECTION_LOST",
            "EtcdError.NO_LEADER",
        ),
    ),
    _etcd(
        "answers_of_a_batch_share_a_header",
        "the header has the revision of the answer: all that were applied together have that of the last",
        Change(
            _SUBMISSIONS,
            "waiter.reply(write_header(result.revision) + result.body)",
            "waiter.reply(write_header(results[-1].revision) + result.body)",
        ),
    ),
    _etcd(
        "caught_up_watch_skips_revision",
        "a watch is told of every change: one that catches up is taken for up to date a revision too early",
        Change(_WATCHES, "if cursor >= self._synced.cursor:", "if cursor >= self._synced.cursor - 1:"),
    ),
    _etcd(
        "catching_up_parts_a_revision",
        "the events of a revision come together, and all: who catches up is told of the first ones where a step ends",
        Change(
            _WATCHES,
            """                if news.is_enough():
                    return revision
            news""",
            """            if news.is_enough():
                return revision + 1
            news""",
        ),
    ),
    _etcd(
        "restored_watches_skip_snapshot",
        "a watch is told of every change: of what a snapshot brought in one go it is not",
        Change(
            _WATCHES,
            "if behind.cursor == self._synced.cursor:\n            self._synced = behind",
            "if behind.count:\n            behind.cursor, self._synced = self._synced.cursor, behind",
        ),
    ),
    _etcd(
        "overtaken_watch_not_cancelled",
        "a watch that a compaction overtook is told so: it goes on as if it had missed nothing",
        Change(
            _WATCHES,
            """            self._tell_compacted(watch)
            return
        if wants_progress""",
            """            watch = Watch(stream, watch_id, subject, store.compacted_revision, may_split, wants_progress)
        if wants_progress""",
        ),
    ),
    _etcd(
        "progress_told_to_lagging_watches",
        "progress promises that nothing earlier comes: it is told of watches that are still catching up",
        Change(_WATCHES, "if self._synced.has_all_of(stream):", "if len(stream.watches) >= 0:"),
    ),
    _etcd(
        "watch_of_the_future_told_of_the_present",
        "a watch is told of nothing before its start: one that starts in the future is told at once",
        Change(_WATCHES, "if watch.start > events[0][0]:", "if watch.start < 0:"),
    ),
    _etcd(
        "watch_from_now_on_misses_the_next_change",
        "a watch from now on is told of all behind the revision in its first answer: the first one is left out",
        Change(_WATCHES, "start or self._synced.cursor,", "start or self._synced.cursor + 1,"),
    ),
    _etcd(
        "lease_confirmed_by_whoever_knows_it",
        "a lease that was kept alive lasts: every node answers by itself, also one that is cut off from the leader",
        Change(
            _KEEP_ALIVE,
            """        if beat.lease in self._store.leases:
            self._ask(beat)
        else:
            self._unknown""",
            """        if beat.lease in self._store.leases:
            self._ask(beat)
            self._answer((beat,), self._store.leases[beat.lease].ttl_s)
        else:
            self._unknown""",
        ),
    ),
    _etcd(
        "new_leader_expires_leases_early",
        "a lease lasts for its TTL: a new leader gives those that it has not heard of yet the grace alone",
        Change(_CLOCK, "now_ms + timeout_ms + grace_ms for id_", "now_ms + grace_ms for id_"),
    ),
    _etcd(
        "expiring_lease_kept_alive",
        "no lease is kept alive once its end was proposed: keep-alives are confirmed while it is on its way",
        Change(
            _CLOCK,
            "        if id_ not in self._deadline_ms:\n            return False\n",
            "        if id_ not in self._timeout_ms:\n            return False\n",
        ),
    ),
    _etcd(
        "keep_alives_of_followers_dropped",
        "a lease lasts as long as it is kept alive: what a follower heard is confirmed, and not counted",
        Change(_KEEPER, "if not clock.touch(lease, now_ms)]", "if clock.is_ending(lease)]"),
    ),
)
