"""The protocols by name.  Any service runs on any of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from quorate.consensus.paxos import PROTOCOL as PAXOS
from quorate.consensus.raft import PROTOCOL as RAFT
from quorate.consensus.replica import ConsensusProtocol
from quorate.consensus.zab import PROTOCOL as ZAB

PROTOCOLS: Mapping[str, ConsensusProtocol] = MappingProxyType(
    {protocol.name: protocol for protocol in (RAFT, PAXOS, ZAB)}
)
