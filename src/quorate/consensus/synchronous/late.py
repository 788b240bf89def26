"""One late message: the run in which two processes decide differently, and neither can tell."""

from __future__ import annotations

from quorate.consensus.synchronous.floodset import Outcome, flood
from quorate.consensus.synchronous.rounds import Crash, Late


def one_late_message() -> tuple[Outcome, Outcome]:
    """The same run twice: with all messages in time, and with one that comes after its round.

    Three processes, of which one may stop, so two rounds.  Process 1, which alone has the
    smallest value, stops in round 1 and reaches only process 2.  In round 2 process 2 tells
    process 3, in time or not.  To process 3 the late message looks like a second crash,
    which it was promised would not happen; but process 2 lives, and has decided.
    """
    values = {1: "a", 2: "b", 3: "c"}
    crashes = [Crash(1, 1, frozenset({2}))]
    return flood(values, 2, crashes), flood(values, 2, crashes, [Late(2, 3, 2)])
