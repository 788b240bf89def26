"""What the three protocols share leaves parts to them: each of them has every part.

The shared classes of roles are no `abc.ABC`, whose `isinstance` is slow where a replica asks
for its role at every step; so nothing else would tell before the part is missed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import quorate.consensus
from quorate.consensus.paxos.candidate import Candidate as PaxosCandidate
from quorate.consensus.paxos.core import Core as PaxosCore
from quorate.consensus.paxos.follower import Follower as PaxosFollower
from quorate.consensus.paxos.leader import Leader as PaxosLeader
from quorate.consensus.paxos.replica import PaxosReplica
from quorate.consensus.pre_vote import PreVoteReplica
from quorate.consensus.raft.candidate import Candidate as RaftCandidate
from quorate.consensus.raft.core import Core as RaftCore
from quorate.consensus.raft.follower import Follower as RaftFollower
from quorate.consensus.raft.leader import Leader as RaftLeader
from quorate.consensus.raft.replica import RaftReplica
from quorate.consensus.zab.core import Core as ZabCore
from quorate.consensus.zab.follower import Follower as ZabFollower
from quorate.consensus.zab.leader import Leader as ZabLeader
from quorate.consensus.zab.replica import ZabReplica

RAFT = (RaftReplica, RaftCore, RaftFollower, RaftCandidate, RaftLeader)
PAXOS = (PaxosReplica, PaxosCore, PaxosFollower, PaxosCandidate, PaxosLeader)
ZAB = (ZabReplica, ZabCore, ZabFollower, ZabLeader)


def missing(part: type) -> list[str]:
    return [name for name in dir(part) if getattr(getattr(part, name), "__isabstractmethod__", False)]


@pytest.mark.parametrize("part", [*RAFT, *PAXOS, *ZAB], ids=lambda part: f"{part.__module__}.{part.__name__}")
def test_a_protocol_has_every_part_that_is_left_to_it(part: type) -> None:
    assert missing(part) == []


def test_what_is_left_to_protocols_would_be_found() -> None:
    assert "_become_leader" in missing(PreVoteReplica) and "_receive" in missing(PreVoteReplica)


SHARED = sorted(Path(quorate.consensus.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", SHARED, ids=lambda path: path.stem)
def test_what_protocols_share_knows_none_of_them(path: Path) -> None:
    own = [name for name in ("raft", "paxos", "zab") if f"quorate.consensus.{name}" in path.read_text(encoding="utf-8")]
    assert own == (["raft", "paxos", "zab"] if path.stem == "protocols" else [])
