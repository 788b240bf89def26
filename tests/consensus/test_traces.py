"""Golden traces: each file in `traces/` is a situation, and shows all that the protocol does in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from quorate.consensus.protocols import PROTOCOLS
from quorate.consensus.raft.hard_state import encode_hard_state
from tests.consensus.script import Script

FOLDER = Path(__file__).parent / "traces"
TRACES = sorted(FOLDER.glob("*/*.txt"))
ENCODE_STATE = {"raft": lambda generation: encode_hard_state(generation, None)}


@pytest.mark.parametrize("path", TRACES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_trace_is_what_the_protocol_does(path: Path, request: pytest.FixtureRequest) -> None:
    protocol = path.parent.name
    golden = path.read_text()
    actual = Script(PROTOCOLS[protocol], ENCODE_STATE[protocol]).run(golden)
    if request.config.getoption("--update-traces", default=False):
        path.write_text(actual)
    else:
        assert actual == golden, f"{path.name} differs: run `pytest tests/consensus --update-traces`, then git diff"
