"""Calls of methods as bytes, and back: the method's name and its arguments, checked by their annotations.

Arguments stand in the order of the parameters, and those that are missing at the end have their defaults, so a command
may get more parameters and read what was written before.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Union

import msgspec

from quorate.statemachine.data import check_type, hints_of
from quorate.statemachine.errors import InvalidCommand
from quorate.statemachine.machine import StateMachine, commands_of

SHOWN_CHARACTERS: Final = 200
"""Of the arguments of one call, in a message."""


@dataclass(frozen=True, slots=True)
class Call:
    """A command that was read."""

    name: str
    method: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]

    def run(self, machine: StateMachine) -> Any:
        return self.method(machine, *self.args, **self.kwargs)

    def __str__(self) -> str:
        shown = ", ".join([*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())])
        return f"{self.name}({shown if len(shown) <= SHOWN_CHARACTERS else shown[:SHOWN_CHARACTERS] + '...'})"


class CommandCodec:
    """The commands of one class, or other methods of it."""

    def __init__(self, machine: type[StateMachine], methods: Mapping[str, Callable[..., Any]] | None = None) -> None:
        """Raises TypeError where a command's parameters are not ones that every node would understand alike."""
        self._class = machine.__name__
        self._commands = {
            name: _Command(f"{machine.__name__}.{name}", method)
            for name, method in (commands_of(machine) if methods is None else methods).items()
        }
        self._encoder = msgspec.msgpack.Encoder()
        self._head = msgspec.msgpack.Decoder(tuple[str, msgspec.Raw])

    def encode(self, method: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """Raises InvalidCommand."""
        name = getattr(method, "__name__", repr(method))
        command = self._commands.get(name)
        if command is None:
            known = ", ".join(self._commands) or "none"
            raise InvalidCommand(
                f"{self._class} has no command {name} (it has {known}): mark it with @quorate.command, or query it"
            )
        try:
            encoded = self._encoder.encode(command.in_order(args, kwargs))
            # What no node could read must not come into the log.
            command.call(encoded)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidCommand(f"{self._class}.{name}: {error}") from error
        return self._encoder.encode((name, msgspec.Raw(encoded)))

    def decode(self, data: bytes) -> Call:
        """Raises ValueError where it is no command of this class."""
        name, encoded = self._head.decode(data)
        command = self._commands.get(name)
        if command is None:
            raise ValueError(f"{self._class} has no command {name}")
        try:
            return command.call(encoded)
        except ValueError as error:
            raise ValueError(f"{self._class}.{name}: {error}") from error


class _Command:
    """One method and its parameters."""

    def __init__(self, name: str, method: Callable[..., Any]) -> None:
        """Raises TypeError."""
        self._name = name
        self._method = method
        self._signature = inspect.signature(method)
        hints = hints_of(method, name)
        fields: list[Any] = []
        self._keywords_from = 0
        """Where those begin that are passed by name only."""
        for parameter in list(self._signature.parameters.values())[1:]:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise TypeError(f"{name}: the parameter {parameter} can be anything; name each one, with its type")
            if parameter.name not in hints:
                raise TypeError(f"{name}: the parameter {parameter.name} has no type; write `{parameter.name}: ...`")
            hint = hints[parameter.name]
            check_type(hint, f"{name}, parameter {parameter.name}")
            if parameter.default is parameter.empty and not (fields and len(fields[-1]) == 3):
                fields.append((parameter.name, hint))
            else:
                fields.append((parameter.name, Union[hint, msgspec.UnsetType], msgspec.UNSET))  # noqa: UP007
            if parameter.kind is not parameter.KEYWORD_ONLY:
                self._keywords_from += 1
        self._names = [field[0] for field in fields]
        shape = msgspec.defstruct("Arguments", fields, array_like=True, forbid_unknown_fields=True)
        self._decoder = msgspec.msgpack.Decoder(shape)

    def in_order(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """One argument for each parameter.  Raises TypeError where they do not fit."""
        bound = self._signature.bind(None, *args, **kwargs)
        bound.apply_defaults()
        return list(bound.arguments.values())[1:]

    def call(self, encoded: bytes | msgspec.Raw) -> Call:
        """Raises ValueError."""
        arguments = self._decoder.decode(encoded)
        given = {name: value for name in self._names if (value := getattr(arguments, name)) is not msgspec.UNSET}
        names = self._names[: self._keywords_from]
        args = [given.pop(name) for name in names if name in given]
        return Call(self._name, self._method, args, given)
