"""What is replicated: locks with a queue each, sessions with a lease each, and fencing tokens."""

from __future__ import annotations

import quorate


class NoSession(quorate.CommandError):
    """The session's lease is over, or there never was such a session: it holds nothing and waits for nothing."""


class AlreadyAsked(quorate.CommandError):
    """The session holds this lock or waits for it."""


class NotAsked(quorate.CommandError):
    """The session neither holds this lock nor waits for it."""


class Locks(quorate.StateMachine):
    """A session gets a lock when those that asked for it earlier are gone.

    Time is `now_ms`, which the log brings: all nodes agree on which lease is over, and when.
    """

    queues: dict[str, list[str]]
    """Lock -> sessions in the order in which they asked; the first one holds it.  Never empty."""
    tokens: dict[str, int]
    """Lock -> the fencing token of its holder.  Each grant, of any lock, has a higher one than all before."""
    leases: dict[str, int]
    """Session -> until when it lives (ms) unless it is renewed."""
    last_token: int

    def __init__(self) -> None:
        self.queues = {}
        self.tokens = {}
        self.leases = {}
        self.last_token = 0

    @quorate.command
    def open(self, session: str, lease_ms: int) -> None:
        self.leases[session] = self.now_ms + lease_ms

    @quorate.command
    def renew(self, sessions: list[str], lease_ms: int) -> list[str]:
        """Those that are no more."""
        for session in sessions:
            if session in self.leases:
                self.leases[session] = self.now_ms + lease_ms
        return [session for session in sessions if session not in self.leases]

    @quorate.command
    def close(self, session: str) -> None:
        """Leave every queue.  Of a session that is no more this is no error: it may be done twice."""
        if self.leases.pop(session, None) is not None:
            for name in [name for name, queue in self.queues.items() if session in queue]:
                self._leave(session, name)

    @quorate.command
    def expire(self) -> list[str]:
        """End the sessions whose lease is over; those."""
        over = [session for session, until_ms in self.leases.items() if until_ms < self.now_ms]
        for session in over:
            self.close(session)
        return over

    @quorate.command
    def lock(self, session: str, name: str) -> int:
        """Ask for a lock; how many are before this session, 0 where it holds it now."""
        if session not in self.leases:
            raise NoSession(session)
        queue = self.queues.get(name, [])
        if session in queue:
            raise AlreadyAsked(name)
        self.queues[name] = queue
        queue.append(session)
        if len(queue) == 1:
            self._grant(name)
        return len(queue) - 1

    @quorate.command
    def unlock(self, session: str, name: str) -> None:
        """Give a lock back, or stop waiting for it."""
        if session not in self.queues.get(name, []):
            raise NotAsked(name)
        self._leave(session, name)

    def places(self, names: list[str]) -> dict[str, tuple[list[str], int]]:
        """Lock -> who holds it and then who waits for it, and the holder's token (0 where there is none)."""
        return {name: (self.queues.get(name, []), self.tokens.get(name, 0)) for name in names}

    def _leave(self, session: str, name: str) -> None:
        queue = self.queues[name]
        held = queue[0] == session
        queue.remove(session)
        if not queue:
            del self.queues[name], self.tokens[name]
        elif held:
            self._grant(name)

    def _grant(self, name: str) -> None:
        self.last_token += 1
        self.tokens[name] = self.last_token
