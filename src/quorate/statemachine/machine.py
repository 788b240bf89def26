"""What a user writes: a class, some of whose methods are commands."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_MARK: Final = "_quorate_command"


class StateMachine:
    """Base of a class that is replicated.

    Methods with `@command` change it, deterministically: they read nothing but its state, their arguments and
    `now_ms`.  All others only read.  The annotations in the class body declare the state, for snapshots; or the class
    has `snapshot(self) -> bytes` and `restore(self, data: bytes) -> None`, which is called on a new instance.
    """

    now_ms: int = 0
    """Unix time in milliseconds, as the leader stamped it on the command at hand, or on the last one.

    Never lower than before, and the same on every node.  Set from outside; no part of the declared state.
    """


def command(method: F) -> F:
    """Mark a method as one that may change the state: it runs on every node, in the same order."""
    if inspect.iscoroutinefunction(method) or inspect.isgeneratorfunction(method):
        raise TypeError(f"{method.__qualname__} cannot be a command: it must be done when it returns, so no `async`")
    setattr(method, _MARK, True)
    return method


def commands_of(machine: type[StateMachine]) -> dict[str, Callable[..., Any]]:
    """Name -> the method that a call reaches, of those that the class, or one that it is derived from, marks."""
    marked = sorted({name for base in machine.__mro__ for name, it in vars(base).items() if hasattr(it, _MARK)})
    return {name: getattr(machine, name) for name in marked}
