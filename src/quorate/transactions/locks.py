"""Shared and exclusive locks by key.  Nobody waits: a conflict is an answer."""

from __future__ import annotations

from collections.abc import Collection

from quorate.transactions.messages import TransactionId


class Locks:
    """Who holds what.  No deadlock is possible, because nobody waits for a lock while holding another."""

    def __init__(self) -> None:
        self._exclusive: dict[str, TransactionId] = {}
        self._shared: dict[str, dict[TransactionId, None]] = {}
        self._held: dict[TransactionId, tuple[str, ...]] = {}

    def __len__(self) -> int:
        """How many transactions hold locks."""
        return len(self._held)

    def acquire(self, owner: TransactionId, reads: Collection[str], writes: Collection[str]) -> str | None:
        """All or nothing: None, or the first key that another transaction has locked in a way that conflicts."""
        assert owner not in self._held, f"{owner} holds locks already"
        keys = tuple(sorted({*reads, *writes}))
        for key in keys:
            if key in self._exclusive or (key in writes and key in self._shared):
                return key
        for key in keys:
            if key in writes:
                self._exclusive[key] = owner
            else:
                self._shared.setdefault(key, {})[owner] = None
        self._held[owner] = keys
        return None

    def release(self, owner: TransactionId) -> None:
        """All of them at once, when the transaction has ended (strict two-phase locking)."""
        for key in self._held.pop(owner):
            if key in self._exclusive:
                del self._exclusive[key]
                continue
            owners = self._shared[key]
            del owners[owner]
            if not owners:
                del self._shared[key]
