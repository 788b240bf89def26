"""Simulate code of your own: a replicated state machine, or clients.  See docs/simulation_own.md."""

from quorate.simulation.own.client import StateMachineClient
from quorate.simulation.own.replicated import CommandClient
from quorate.simulation.own.scenario import ClientWorld
from quorate.simulation.own.statemachine import StateMachine
from quorate.simulation.own.trial import Simulate
from quorate.statemachine.errors import OutcomeUnknown, Refused

__all__ = [
    "ClientWorld",
    "CommandClient",
    "OutcomeUnknown",
    "Refused",
    "Simulate",
    "StateMachine",
    "StateMachineClient",
]
