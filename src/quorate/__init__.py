"""Quorate: a coordination service and a consensus laboratory in pure Python."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quorate.statemachine.blocking import BlockingReplicated
    from quorate.statemachine.embedded import embedded_cluster
    from quorate.statemachine.errors import (
        CannotStart,
        CommandError,
        InvalidCommand,
        NodeStopped,
        OutcomeUnknown,
        Refused,
        StateMachineFailed,
    )
    from quorate.statemachine.machine import StateMachine, command
    from quorate.statemachine.replicated import Replicated

__version__ = "0.1.0"

__all__ = [
    "BlockingReplicated",
    "CannotStart",
    "CommandError",
    "InvalidCommand",
    "NodeStopped",
    "OutcomeUnknown",
    "Refused",
    "Replicated",
    "StateMachine",
    "StateMachineFailed",
    "command",
    "embedded_cluster",
]

_HOMES = MappingProxyType(
    {
        **dict.fromkeys(
            (
                *("CannotStart", "CommandError", "InvalidCommand", "NodeStopped", "OutcomeUnknown", "Refused"),
                "StateMachineFailed",
            ),
            "quorate.statemachine.errors",
        ),
        "BlockingReplicated": "quorate.statemachine.blocking",
        "Replicated": "quorate.statemachine.replicated",
        "StateMachine": "quorate.statemachine.machine",
        "command": "quorate.statemachine.machine",
        "embedded_cluster": "quorate.statemachine.embedded",
    }
)
"""Name -> the module that has it, imported when somebody asks: every module of Quorate imports this one first."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
