"""A reader of EDN, as far as Jepsen's histories use it (https://github.com/edn-format/edn).

Maps, vectors, lists, sets, keywords, symbols, strings, characters, numbers, nil, booleans, tagged values, comments,
`#_`, and what Clojure prints besides: metadata, `##Inf`, `##NaN`, `#:namespace{...}`.

There is a package for EDN (edn_format), but it has had no release since 2020 and needs three others.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from types import MappingProxyType

from quorate.checking.history import MOST_NESTED, HistoryError, JsonValue

TOKEN = re.compile(
    r"""(?P<space>[\s,]+|;[^\n]*)"""
    r"""|(?P<open>\#\{|[\[({])|(?P<close>[\])}])"""
    r"""|(?P<discard>\#_)|(?P<metadata>\#?\^)|(?P<symbolic>\#\#[-A-Za-z]+)"""
    r"""|(?P<namespace>\#:[^\s,\[\](){}";:]+)|(?P<tag>\#[A-Za-z][^\s,\[\](){}";]*)"""
    r"""|"(?P<string>(?:[^"\\]|\\.)*)\""""
    r"""|(?P<character>\\(?:[A-Za-z0-9]+|[^\s]))"""
    r"""|(?P<atom>[^\s,\[\](){}";\\#][^\s,\[\](){}";\\]*)""",
    re.DOTALL,
)
CLOSING = MappingProxyType({"[": "]", "(": ")", "{": "}", "#{": "}"})
NUMBER = re.compile(r"[+-]?\d+(?P<fraction>\.\d*)?(?P<exponent>[eE][+-]?\d+)?[NM]?", re.ASCII)
MOST_DIGITS = 1000
ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
ESCAPES = MappingProxyType({"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", '"': '"', "\\": "\\", "/": "/"})
CHARACTERS = MappingProxyType(
    {"newline": "\n", "space": " ", "tab": "\t", "return": "\r", "formfeed": "\f", "backspace": "\b"}
)
CODE_POINT = re.compile(r"u[0-9A-Fa-f]{4}")
SYMBOLIC = ("##Inf", "##-Inf", "##NaN")


@dataclass(frozen=True, slots=True)
class Form:
    """One value, and the line on which it begins."""

    line: int
    value: JsonValue


@dataclass(slots=True)
class _Token:
    kind: str
    text: str
    line: int


def read_forms(text: str) -> Iterator[Form]:
    """The values of the text one after the other; a vector or list at the top gives its items instead.

    EDN becomes JSON: a keyword is a string that begins with a colon, a symbol is a string, a list or set an array, a
    tagged value what the tag is put to.  Keys of maps that are no strings become their text behind a `#`, so that `1`
    and `"1"` stay two.  A decimal (`1.1M`) that no float holds becomes its text, and so do `##Inf` and `##NaN`, which
    JSON has not.  Metadata is dropped.  Raises HistoryError.
    """
    tokens = _Tokens(text)
    while (token := tokens.next()) is not None:
        if token.kind == "open" and token.text in ("[", "("):
            while (inner := tokens.next()) is not None and inner.kind != "close":
                yield from _form(tokens, inner)
            _closes(token, inner)
        else:
            yield from _form(tokens, token)


def _form(tokens: _Tokens, token: _Token) -> Iterator[Form]:
    if token.kind == "discard":
        _value(tokens, _following(tokens, token, 0), 0)
    else:
        yield Form(token.line, _value(tokens, token, 0))


class _Tokens:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1

    def next(self) -> _Token | None:
        while self._at < len(self._text):
            match = TOKEN.match(self._text, self._at)
            if match is None:
                raise HistoryError(self._line, f"not EDN: {self._text[self._at : self._at + 20]!r}")
            line = self._line
            whole = match.group()
            self._at = match.end()
            self._line += whole.count("\n")
            kind = match.lastgroup
            assert kind is not None
            if kind != "space":
                return _Token(kind, match.group(kind), line)
        return None


def _following(tokens: _Tokens, token: _Token, depth: int) -> _Token:
    """The token with which the next value begins that is not discarded."""
    following = tokens.next()
    discarded = 0
    while following is not None and (discarded or following.kind == "discard"):
        if following.kind == "discard":
            discarded += 1
        else:
            _value(tokens, following, depth + 1)
            discarded -= 1
        following = tokens.next()
    if following is None:
        raise HistoryError(token.line, f"the text ends after {token.text}")
    return following


def _closes(opening: _Token, closing: _Token | None) -> None:
    if closing is None:
        raise HistoryError(opening.line, f"{opening.text} is never closed")
    if closing.text != CLOSING[opening.text]:
        raise HistoryError(closing.line, f"{closing.text} closes the {opening.text} of line {opening.line}")


def _value(tokens: _Tokens, token: _Token, depth: int) -> JsonValue:
    if depth > MOST_NESTED:
        raise HistoryError(token.line, f"nested more than {MOST_NESTED} deep")
    match token.kind:
        case "open":
            return _collection(tokens, token, depth)
        case "tag":
            return _value(tokens, _following(tokens, token, depth), depth + 1)
        case "metadata":
            _value(tokens, _following(tokens, token, depth), depth + 1)
            return _value(tokens, _following(tokens, token, depth), depth + 1)
        case "namespace":
            return _namespaced(tokens, token, depth)
        case "string":
            return _unescape(token.text, token.line)
        case "character":
            return _character(token)
        case "symbolic" if token.text in SYMBOLIC:
            return token.text
        case "atom":
            return _atom(token)
    raise HistoryError(token.line, f"{token.text} is out of place")


def _collection(tokens: _Tokens, opening: _Token, depth: int) -> JsonValue:
    items: list[JsonValue] = []
    while (token := tokens.next()) is not None and token.kind != "close":
        if token.kind == "discard":
            _value(tokens, _following(tokens, token, depth), depth + 1)
        else:
            items.append(_value(tokens, token, depth + 1))
    _closes(opening, token)
    if opening.text == "#{":
        return sorted(items, key=_canonical)
    if opening.text != "{":
        return items
    if len(items) % 2:
        raise HistoryError(opening.line, "a map without a value to its last key")
    found: dict[str, JsonValue] = {}
    for key, value in zip(*[iter(items)] * 2, strict=True):
        name = key if isinstance(key, str) else f"#{_canonical(key)}"
        if name in found:
            raise HistoryError(opening.line, f"a map has the key {name} twice")
        found[name] = value
    return found


def _canonical(value: JsonValue) -> str:
    """Equal texts for equal values, in whatever order a map was written."""
    return json.dumps(value, sort_keys=True)


def _namespaced(tokens: _Tokens, token: _Token, depth: int) -> JsonValue:
    """`#:a{:b 1, :_/c 2, :d/e 3}` is `{:a/b 1, :c 2, :d/e 3}`."""
    value = _value(tokens, _following(tokens, token, depth), depth + 1)
    if not isinstance(value, Mapping):
        raise HistoryError(token.line, f"{token.text} is not followed by a map")

    def qualified(key: str) -> str:
        if key.startswith(":_/"):
            return f":{key[3:]}"
        return f"{token.text[1:]}/{key[1:]}" if key.startswith(":") and "/" not in key else key

    return {qualified(key): inner for key, inner in value.items()}


def _atom(token: _Token) -> JsonValue:
    text = token.text
    match text:
        case "nil":
            return None
        case "true" | "false":
            return text == "true"
    number = NUMBER.fullmatch(text)
    if number is None:
        return text
    digits = text.rstrip("NM")
    if len(digits) > MOST_DIGITS:
        raise HistoryError(token.line, f"a number of more than {MOST_DIGITS} digits")
    if not number["fraction"] and not number["exponent"]:
        return int(digits)
    if text.endswith("M"):
        return _decimal(digits, token.line)
    if not math.isfinite(float(digits)):
        raise HistoryError(token.line, f"{digits} is out of range")
    return float(digits)


def _decimal(digits: str, line: int) -> JsonValue:
    """A number where one holds exactly this value, else a text that is equal for equal values."""
    try:
        value = Decimal(digits)
    except InvalidOperation as error:
        raise HistoryError(line, f"{digits} is out of range") from error
    sign, figures, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    while len(figures) > 1 and figures[-1] == 0:
        figures, exponent = figures[:-1], exponent + 1
    if value == 0 or 0 <= exponent <= MOST_DIGITS:
        return int(value)
    nearest = float(value)
    return nearest if Decimal(nearest) == value else f"{Decimal((sign, figures, exponent))}M"


def _character(token: _Token) -> str:
    name = token.text[1:]
    if CODE_POINT.fullmatch(name):
        return _unescape(token.text, token.line)
    return CHARACTERS.get(name, name)


def _unescape(escaped: str, line: int) -> str:
    def replacement(match: re.Match[str]) -> str:
        escape = match[1]
        if len(escape) == 5:
            return chr(int(escape[1:], 16))
        if escape not in ESCAPES:
            raise HistoryError(line, f"a string has the unknown escape {match[0]!r}")
        return ESCAPES[escape]

    text = ESCAPE.sub(replacement, escaped)
    try:
        # Java writes characters beyond the first 65,536 as two escapes.
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as error:
        raise HistoryError(line, "a string has half of a surrogate pair") from error
