"""Raft."""

from __future__ import annotations

from quorate.consensus.raft.messages import AnyMessage
from quorate.consensus.raft.replica import RaftReplica
from quorate.consensus.replica import ConsensusProtocol

PROTOCOL = ConsensusProtocol(name="raft", message_type=AnyMessage, build=RaftReplica)
