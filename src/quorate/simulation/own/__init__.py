"""Simulate code of your own: a replicated state machine, or clients.  See docs/simulation_own.md."""

from quorate.simulation.own.client import OutcomeUnknown, Refused, StateMachineClient
from quorate.simulation.own.scenario import ClientWorld
from quorate.simulation.own.statemachine import StateMachine
from quorate.simulation.own.trial import Simulate

__all__ = ["ClientWorld", "OutcomeUnknown", "Refused", "Simulate", "StateMachine", "StateMachineClient"]
