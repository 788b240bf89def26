"""Golden traces: each file in `traces/` is a situation, and shows all that the protocol does in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quorate.consensus.paxos import PROTOCOL as PAXOS
from quorate.consensus.paxos.ballots import ballot_of
from quorate.consensus.protocols import PROTOCOLS
from quorate.consensus.zab import PROTOCOL as ZAB
from tests.consensus.script import Script

FOLDER = Path(__file__).parent / "traces"
KNOWN = {protocol.name: protocol for protocol in (*PROTOCOLS.values(), PAXOS, ZAB)}
TRACES = sorted(path for path in FOLDER.glob("*/*.txt") if path.parent.name in KNOWN)

BALLOT = re.compile(r"\b(\d+)(\d{9})\b")
PAIR = re.compile(r"\b(\d+)\.(\d+)\b")


def expand(text: str) -> str:
    """Paxos' traces have ballots as round.node."""
    return PAIR.sub(lambda pair: str(ballot_of(int(pair[1]), int(pair[2]))), text)


def contract(text: str) -> str:
    return BALLOT.sub(lambda ballot: f"{ballot[1]}.{int(ballot[2])}", text)


@pytest.mark.parametrize("path", TRACES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_trace_is_what_the_protocol_does(path: Path, request: pytest.FixtureRequest) -> None:
    protocol = KNOWN[path.parent.name]
    golden = path.read_text()
    script = Script(protocol, protocol.state_at)
    actual = contract(script.run(expand(golden))) if protocol is PAXOS else script.run(golden)
    if request.config.getoption("--update-traces", default=False):
        path.write_text(actual)
    else:
        assert actual == golden, f"{path.name} differs: run `pytest tests/consensus --update-traces`, then git diff"
