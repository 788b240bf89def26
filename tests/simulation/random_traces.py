"""Random traces, for properties that hold for every run."""

from __future__ import annotations

from hypothesis import strategies as st

from quorate.simulation.trace import Trace

PLACES = ("node-0", "node-1", "client-0", "faults")


steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["note", "note", "crash", "start", "violation", "send", "send", "receive", "receive", "receive"]
        ),
        st.sampled_from(PLACES),
        st.sampled_from(PLACES),
        st.integers(0, 5),
    ),
    max_size=30,
)


@st.composite
def runs(draw: st.DrawFn, keep: st.SearchStrategy[int | None] | None = None) -> Trace:
    """Random runs.  Messages are lost, late, doubled and crossing."""
    return play(Trace(draw(keep) if keep is not None else None), draw(steps))


def play(trace: Trace, script: list[tuple[str, str, str, int]]) -> Trace:
    targets: dict[int, str] = {}
    for moment, (kind, place, peer, back) in enumerate(script):
        if kind == "send" and "faults" not in (place, peer):
            targets[trace.send(place, moment / 10, peer, f"text {moment}")] = peer
        elif kind == "receive" and targets:
            message = sorted(targets)[-1 - back % len(targets)]
            trace.receive(targets[message], moment / 10, message)
        else:
            trace.note(place, moment / 10, "note" if kind in ("send", "receive") else kind, f"text {moment}")
    return trace
