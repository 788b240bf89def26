"""The tree as clients know it, replayed in the order of zxids and held against every answer.

An answer as of zxid z is about the state after all changes up to z.  So changes and answers are sorted by zxid (a
change goes before the answers as of its own zxid), and each answer must agree with what is known by then.  Where it
does not, a doubt (see `writes`) may explain it, and what was seen is then known.

It holds because a server answers from its store, which is the result of the log up to the zxid in the reply's header.

*Multis.*  The parts of one that was done are replayed in their order, and a check must find the version that is known
there.  One that was refused must have a part which, behind the parts in front of it, may be refused like that.

*Ephemerals.*  The end of a session is one zxid, at which all its ephemerals vanish together.  Where a session was not
closed in an orderly way its zxid is unknown, but an ephemeral that is seen to be gone, and was not deleted, says that
it is not above the zxid of that answer.  From there on no ephemeral of the session may be seen, and nothing that the
session asks may be answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from quorate.checking.zookeeper.records import (
    BAD_VERSION,
    NO_NODE,
    NODE_EXISTS,
    OK,
    Call,
    End,
    Finding,
    History,
    Kind,
    Part,
)
from quorate.checking.zookeeper.writes import NEVER, Change, Writes, describe

_MAKING: Final = frozenset({Kind.CREATE})
_REMOVING: Final = frozenset({Kind.DELETE})
_WRITING: Final = frozenset({Kind.CREATE, Kind.SET})
_ANY: Final = frozenset({Kind.CREATE, Kind.SET, Kind.DELETE})


@dataclass(slots=True)
class _Node:
    """What is known of one path as of `known_at`; 0, -1 and None for what is not."""

    present: bool
    known_at: int
    czxid: int = 0
    mzxid: int = 0
    version: int = -1
    value: str | None = None
    session: int | None = None
    """Whose ephemeral it is."""
    seen_at: int = 0
    """As of a later zxid it was listed; that says no more than that it is there."""


@dataclass(frozen=True, slots=True)
class Gone:
    """A node was gone as of zxid `by`, and had been there as of `there_at`; -1 where nobody knows that."""

    there_at: int
    by: int


class Replay:
    """`findings` are what was wrong, `gone` when each path is known not to have been there, in order of zxid."""

    def __init__(self, history: History, writes: Writes) -> None:
        self.findings: list[Finding] = []
        self.gone: dict[str, list[Gone]] = {}
        self._history = history
        self._writes = writes
        self._nodes: dict[str, _Node] = {}
        self._present: dict[str, set[str]] = {}
        """Names of the children that are known to be there, by parent."""
        self._owned: dict[int, dict[str, None]] = {}
        """Ephemerals that are known to be there, by session."""
        self._ended_by: dict[int, int] = {}
        """Session -> a zxid at which it is known to have ended."""
        self._session_of = {session.session_id: session.number for session in history.sessions if session.session_id}
        self._last_zxid: dict[int, int] = {}
        for call in history.calls:
            if call.is_judged():
                self._last_zxid[call.session] = max(self._last_zxid.get(call.session, 0), call.zxid)

    def run(self) -> None:
        steps: list[tuple[int, int, int, Change | Call]] = []
        for change in self._writes.changes:
            steps.append((change.zxid, 0, len(steps), change))
        for call in self._writes.ends:
            steps.append((call.zxid, 0, len(steps), call))
        for call in self._history.calls:
            if call.is_judged() and not (call.is_done() and call.kind not in _READS):
                steps.append((call.zxid, 1, len(steps), call))
        steps.sort()
        for _, is_answer, _, step in steps:
            if isinstance(step, Change):
                self._change(step)
            elif is_answer:
                self._answer(step)
            else:
                self._close_session(step.session, step.zxid)
        for ends in self.gone.values():
            ends.sort(key=lambda end: end.by)

    # --- changes -------------------------------------------------------------------------------

    def _change(self, change: Change) -> None:
        path, zxid, call = change.path, change.zxid, change.call
        known = self._nodes.get(path)
        present = known is not None and known.present
        if change.kind is Kind.CHECK:
            self._check_part(change)
            return
        if change.kind is Kind.CREATE:
            if present:
                self._must_be_gone(call, path, zxid - 1, "created")
            owner = call.session if call.ephemeral else None
            self._put(path, _Node(True, zxid, zxid, zxid, change.version, change.value, owner))
            return
        since = 0 if known is None else known.known_at
        if not present and not self._writes.may_have(path, _MAKING, since, zxid - 1):
            self._report("reads" if call.is_unknown() else "writes", call, f"was done at zxid 0x{zxid:x} on no node")
        if change.kind is Kind.DELETE:
            self._remove(path, zxid)
            return
        if known is not None and present:
            self._check_version(change, known)
        czxid, owner = (known.czxid, known.session) if known is not None and present else (0, None)
        if czxid and self._writes.may_have(path, _MAKING, since, zxid - 1):
            # Perhaps it is another node by now.
            czxid, owner = 0, None
        if change.czxid:
            if czxid and czxid != change.czxid:
                self._report("writes", call, f"shows czxid 0x{change.czxid:x} of a node created at 0x{czxid:x}")
            czxid = change.czxid
        self._put(path, _Node(True, zxid, czxid, zxid, change.version, change.value, owner))

    def _check_version(self, change: Change, known: _Node) -> None:
        """Each set counts one up; others in between must be doubts."""
        path, zxid = change.path, change.zxid
        if change.version < 0 or known.version < 0 or self._writes.may_have(path, _MAKING, known.known_at, zxid):
            return
        hidden = change.version - known.version - 1
        if hidden and not (hidden > 0 and self._writes.may_have(path, _WRITING, known.known_at, zxid - 1)):
            self._report(
                "writes",
                change.call,
                f"made version {change.version} of {path} at zxid 0x{zxid:x}, "
                f"after version {known.version} at 0x{known.mzxid:x} and nothing in between",
            )

    def _check_part(self, change: Change) -> None:
        """A check in a multi that was done: it must have been able to succeed."""
        part = Part(Kind.CHECK, change.path, version=change.version)
        state = self._state_before(change.path, change.zxid)
        if OK not in _codes(part, state):
            self._report(
                "writes",
                change.call,
                f"was done at zxid 0x{change.zxid:x}, though its check of {change.path} for version {change.version} "
                + (f"finds version {state.version}" if state.may_be_there else "finds no node"),
            )

    def _close_session(self, session: int, zxid: int) -> None:
        """It ended at this very zxid, so up to then all was there that nobody may have deleted."""
        for path in self._owned.get(session, ()):
            node = self._nodes[path]
            if not self._writes.may_have(path, _REMOVING, node.known_at, zxid):
                node.seen_at = zxid - 1
        self._end_session(session, zxid)

    def _end_session(self, session: int, zxid: int) -> None:
        self._ended_by.setdefault(session, zxid)
        for path in list(self._owned.get(session, ())):
            self._remove(path, zxid)

    # --- answers -------------------------------------------------------------------------------

    def _answer(self, call: Call) -> None:
        path = call.path
        if call.kind is Kind.CHILDREN:
            if call.code == NO_NODE:
                self._see_absent(call, path)
            else:
                self._see_children(call)
        elif call.kind is Kind.MULTI:
            self._see_refused(call)
        elif call.code == NO_NODE:
            if call.kind is not Kind.CREATE:
                self._see_absent(call, path)
        elif call.code == NODE_EXISTS:
            self._see_present(call, path)
        elif call.code == BAD_VERSION:
            self._see_present(call, path)
            self._see_other_version(call)
        elif call.kind in _READS:
            self._see_stat(call)

    def _see_children(self, call: Call) -> None:
        prefix = "" if call.path == "/" else call.path
        known = self._present.get(call.path, set())
        listed = set(call.children)
        for name in sorted(known - listed):
            # An earlier one may have told that the whole session is gone.
            if name in known:
                self._see_absent(call, f"{prefix}/{name}")
        for name in sorted(listed - known):
            self._see_present(call, f"{prefix}/{name}")
        for name in sorted(listed):
            node = self._nodes.get(f"{prefix}/{name}")
            if node is not None and node.present:
                node.seen_at = call.zxid
            if node is not None and node.session is not None:
                self._see_owner(call, f"{prefix}/{name}", node.session)

    def _see_stat(self, call: Call) -> None:
        """A get or exists that found a node."""
        path, zxid = call.path, call.zxid
        if not call.czxid <= call.mzxid <= zxid:
            self._report("reads", call, f"shows czxid 0x{call.czxid:x} and mzxid 0x{call.mzxid:x} as of 0x{zxid:x}")
        known = self._nodes.get(path)
        if known is not None and known.present:
            if call.mzxid < known.mzxid:
                self._stale(call, known, f"mzxid 0x{call.mzxid:x}")
            elif (
                known.czxid
                and known.czxid != call.czxid
                and not self._writes.may_have(path, _MAKING, known.known_at, call.czxid)
            ):
                self._report("reads", call, f"shows czxid 0x{call.czxid:x} of a node created at 0x{known.czxid:x}")
            elif call.mzxid > known.mzxid:
                if known.mzxid and not self._writes.may_have(path, _WRITING, known.known_at, call.mzxid):
                    self._report("reads", call, f"shows mzxid 0x{call.mzxid:x}, of which nobody knows a write")
            elif known.version >= 0 and known.version != call.version:
                self._report("reads", call, f"shows version {call.version} where {known.version} was written")
            elif known.value is not None and call.kind is Kind.GET and known.value != call.value:
                self._report("reads", call, f"shows {call.value!r} where {known.value!r} was written")
        elif known is not None and call.czxid <= known.known_at:
            self._report(
                _check_of(known), call, f"shows a node that was gone by zxid 0x{known.known_at:x}, as of 0x{zxid:x}"
            )
        elif not self._writes.may_have(path, _MAKING, 0 if known is None else known.known_at, zxid):
            self._report("reads", call, f"shows a node that nobody created, czxid 0x{call.czxid:x}")
        owner = self._session_of.get(call.owner)
        if owner is not None:
            self._see_owner(call, path, owner)
        value = call.value if call.kind is Kind.GET else None
        if known is not None and known.present and known.mzxid == call.mzxid:
            value = value or known.value
        self._put(path, _Node(True, call.zxid, call.czxid, call.mzxid, call.version, value, owner))

    def _see_present(self, call: Call, path: str) -> None:
        """It is there; the answer says no more."""
        known = self._nodes.get(path)
        if known is not None and known.present:
            return
        since = 0 if known is None else known.known_at
        made = self._writes.doubt(path, _MAKING, since, call.zxid)
        if made is None:
            self._report(
                _check_of(known),
                call,
                f"shows {path} as of zxid 0x{call.zxid:x}, which "
                + (f"was gone by 0x{since:x}" if known is not None else "nobody created"),
            )
        owner = made.call.session if made is not None and made.call.ephemeral else None
        self._put(path, _Node(True, call.zxid, session=owner))

    def _see_owner(self, call: Call, path: str, owner: int) -> None:
        """An ephemeral is there: so its session must not have ended."""
        ended_by = self._ended_by.get(owner, NEVER)
        if ended_by <= call.zxid:
            self._report(
                "ephemerals", call, f"shows {path} as of zxid 0x{call.zxid:x}: its session had ended by 0x{ended_by:x}"
            )
        session = self._history.sessions[owner]
        if call.synced and session.end is End.EXPIRED and session.ended_at < call.invoked_at:
            self._report(
                "ephemerals", call, f"shows {path}, whose client knew at {session.ended_at:.6f} s that it had expired"
            )

    def _see_absent(self, call: Call, path: str) -> None:
        known = self._nodes.get(path)
        if known is not None and known.present:
            self._must_be_gone(call, path, call.zxid, "not found")
        self._remove(path, call.zxid)

    def _must_be_gone(self, call: Call, path: str, zxid: int, what: str) -> None:
        """A node that is known to have been there is not as of `zxid`: somebody deleted it, or its session ended."""
        known = self._nodes[path]
        if self._writes.may_have(path, _REMOVING, known.known_at, zxid):
            return
        if known.session is None:
            self._report(
                "reads", call, f"is {what} as of zxid 0x{zxid:x}: {path} was there at 0x{known.known_at:x}, not deleted"
            )
            return
        last_zxid = self._last_zxid.get(known.session, 0)
        if last_zxid >= zxid:
            self._report(
                "ephemerals",
                call,
                f"is {what} as of zxid 0x{zxid:x}: {path}, whose session {known.session} was served as of "
                f"0x{last_zxid:x} afterwards",
            )
        self._end_session(known.session, zxid)

    def _see_other_version(self, call: Call) -> None:
        known = self._nodes[call.path]
        if known.version == call.expected_version and not self._writes.may_have(
            call.path, _ANY, known.known_at, call.zxid
        ):
            self._report("writes", call, f"was refused for its version {known.version}, which was the right one")

    def _see_refused(self, call: Call) -> None:
        """A multi that did nothing: one of its parts may be refused like that, and all in front of it may be done."""
        within: dict[str, _State] = {}
        for part in call.parts:
            state = within.get(part.path) or self._state_before(part.path, call.zxid)
            codes = _codes(part, state)
            if part.kind is Kind.CREATE and not self._state_before(_parent(part.path), call.zxid).must_be_there:
                codes |= {NO_NODE}
            if call.code in codes:
                return
            if OK not in codes:
                break
            within[part.path] = _after(part, state)
        self._report("writes", call, f"was refused with code {call.code} as of zxid 0x{call.zxid:x}, for no reason")

    def _state_before(self, path: str, zxid: int) -> _State:
        """As far as it is known just before the write with that zxid."""
        known = self._nodes.get(path)
        since = 0 if known is None else known.known_at
        if known is None or not known.present:
            return _State(self._writes.may_have(path, _MAKING, since, zxid - 1), False)
        certain = known.session is None and not self._writes.may_have(path, _REMOVING, since, zxid - 1)
        changed = self._writes.may_have(path, _ANY, since, zxid - 1)
        return _State(True, certain, -1 if changed else known.version)

    def _stale(self, call: Call, known: _Node, shown: str) -> None:
        self._report("reads", call, f"shows {shown} as of zxid 0x{call.zxid:x}: 0x{known.mzxid:x} was written")

    # --- what is known ---------------------------------------------------------------------------

    def _put(self, path: str, node: _Node) -> None:
        self._nodes[path] = node
        parent, _, name = path.rpartition("/")
        self._present.setdefault(parent or "/", set()).add(name)
        if node.session is not None:
            self._owned.setdefault(node.session, {})[path] = None

    def _remove(self, path: str, zxid: int) -> None:
        known = self._nodes.get(path)
        owner = None if known is None else known.session
        there_at = max(known.known_at, known.seen_at) if known is not None and known.present else -1
        self.gone.setdefault(path, []).append(Gone(there_at, zxid))
        self._nodes[path] = _Node(False, zxid, session=owner)
        parent, _, name = path.rpartition("/")
        self._present.get(parent or "/", set()).discard(name)
        if owner is not None:
            self._owned.get(owner, {}).pop(path, None)

    def _report(self, check: str, call: Call, text: str) -> None:
        self.findings.append(
            Finding(check, f"{describe(call)} {text}", call.returned_at or call.invoked_at, call.session)
        )


@dataclass(frozen=True, slots=True)
class _State:
    """What is known of a node for a part of a multi; `version` is -1 where it may be any."""

    may_be_there: bool
    must_be_there: bool
    version: int = -1


def _codes(part: Part, state: _State) -> frozenset[int]:
    """With what that part may be answered."""
    codes: set[int] = set()
    if not state.must_be_there:
        codes.add(OK if part.kind is Kind.CREATE else NO_NODE)
    if state.may_be_there:
        if part.kind is Kind.CREATE:
            codes.add(NODE_EXISTS)
        elif part.kind is not Kind.CHECK or part.version == -1:
            codes.add(OK)
        elif state.version == -1:
            codes |= {OK, BAD_VERSION}
        else:
            codes.add(OK if part.version == state.version else BAD_VERSION)
    return frozenset(codes)


def _after(part: Part, state: _State) -> _State:
    """What the next part finds, when that one was done."""
    if part.kind is Kind.CREATE:
        return _State(True, True, 0)
    if part.kind is Kind.DELETE:
        return _State(False, False)
    if part.kind is Kind.CHECK:
        return _State(True, True, part.version if part.version != -1 else state.version)
    return _State(True, True, -1 if state.version == -1 else state.version + 1)


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _check_of(known: _Node | None) -> str:
    return "reads" if known is None or known.session is None else "ephemerals"


_READS: Final = frozenset({Kind.GET, Kind.EXISTS, Kind.CHILDREN})
