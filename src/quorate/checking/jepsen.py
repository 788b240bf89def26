"""Jepsen's histories: `history.edn`, a map for each event, one after the other or in one vector.

See https://github.com/jepsen-io/history.  The order of events is theirs in the file: `:time` is taken before an event
gets its place in the history, so it may go back a little.  What is no client (`:process :nemesis`) is skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quorate.checking.edn import read_forms
from quorate.checking.history import (
    EVENT_TYPES,
    Event,
    HistoryError,
    Inspect,
    JsonValue,
    Operation,
    Pairing,
    describe,
    key_text,
)


def read_jepsen(text: str, independent: bool = False, inspect: Inspect | None = None) -> list[Operation]:
    """The operations of a history.  Raises HistoryError.

    `independent`: each value is a pair, [key value], as jepsen.independent makes them.  `inspect`: as in `Pairing`.
    """
    pairing = Pairing(inspect)
    clients = False
    for order, form in enumerate(read_forms(text)):
        if not isinstance(form.value, Mapping):
            raise HistoryError(form.line, f"an event is a map, not {describe(form.value)}")
        event = _event(form.line, order, form.value, independent)
        if event is not None:
            clients = True
            pairing.add(event)
    if not clients:
        raise HistoryError(1, "no events of clients")
    return pairing.finish()


def _event(line: int, order: int, fields: Mapping[str, JsonValue], independent: bool) -> Event | None:
    process = fields.get(":process")
    if isinstance(process, str) and process.startswith(":"):
        return None
    for name in (":type", ":process", ":f"):
        if fields.get(name) is None:
            raise HistoryError(line, f"{name} is missing")
    if isinstance(process, bool) or not isinstance(process, int | str):
        raise HistoryError(line, f":process is {describe(process)}, not a whole number, a string or a keyword")
    kind, f = _name(fields[":type"]), _name(fields[":f"])
    if kind not in EVENT_TYPES:
        raise HistoryError(line, f":type is {describe(fields[':type'])}, not one of :{', :'.join(EVENT_TYPES)}")
    if f is None:
        raise HistoryError(line, f":f is {describe(fields[':f'])}, not a keyword")
    key, value, has_value = fields.get(":key"), fields.get(":value"), ":value" in fields
    # A completion without a value says nothing of the key, either.
    if independent and not (value is None and kind != "invoke"):
        if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
            raise HistoryError(line, f":value is {describe(value)}, not a pair of key and value")
        key, value = value
    return Event(line, kind, process, f, key_text(line, key), value, has_value, order)


def _name(value: JsonValue) -> str | None:
    """Jepsen's own events have keywords; some programs write strings."""
    return value.removeprefix(":") if isinstance(value, str) else None
