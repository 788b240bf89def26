"""ZAB."""

from __future__ import annotations

from quorate.consensus.replica import ConsensusProtocol
from quorate.consensus.zab.hard_state import generation_of, state_at
from quorate.consensus.zab.messages import AnyMessage
from quorate.consensus.zab.replica import ZabReplica

PROTOCOL = ConsensusProtocol(
    name="zab", message_type=AnyMessage, build=ZabReplica, generation_of=generation_of, state_at=state_at
)
