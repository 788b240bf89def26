"""A reader of EDN, as far as Jepsen's histories use it (https://github.com/edn-format/edn).

Maps, vectors, lists, sets, keywords, symbols, strings, characters, numbers, nil, booleans, tagged values, comments
and `#_`.  There is a package for EDN (edn_format), but it has had no release since 2020 and needs three others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType

from quorate.checking.history import HistoryError, JsonValue

MOST_NESTED = 100

TOKEN = re.compile(
    r"""(?P<space>[\s,]+|;[^\n]*)"""
    r"""|(?P<open>\#\{|[\[({])|(?P<close>[\])}])"""
    r"""|(?P<discard>\#_)|(?P<tag>\#[A-Za-z][^\s,\[\](){}";]*)"""
    r"""|"(?P<string>(?:[^"\\]|\\.)*)\""""
    r"""|(?P<character>\\(?:[A-Za-z0-9]+|[^\s]))"""
    r"""|(?P<atom>[^\s,\[\](){}";\\#][^\s,\[\](){}";\\]*)""",
    re.DOTALL,
)
CLOSING = MappingProxyType({"[": "]", "(": ")", "{": "}", "#{": "}"})
NUMBER = re.compile(r"[+-]?\d+(?P<fraction>\.\d*)?(?P<exponent>[eE][+-]?\d+)?[NM]?")
ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
ESCAPES = MappingProxyType({"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", '"': '"', "\\": "\\", "/": "/"})
CHARACTERS = MappingProxyType({"newline": "\n", "space": " ", "tab": "\t", "return": "\r"})


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
    tagged value what the tag is put to.  Keys of maps that are no strings become their text.  Raises HistoryError.
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
        case "string":
            return _unescape(token)
        case "character":
            return CHARACTERS.get(token.text[1:], token.text[1:])
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
        return sorted(items, key=repr)
    if opening.text != "{":
        return items
    if len(items) % 2:
        raise HistoryError(opening.line, "a map without a value to its last key")
    return {key if isinstance(key, str) else repr(key): value for key, value in zip(*[iter(items)] * 2, strict=True)}


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
    if not number["fraction"] and not number["exponent"]:
        if len(digits) > 1000:
            raise HistoryError(token.line, "a number of more than 1000 digits")
        return int(digits)
    if not math.isfinite(float(digits)):
        raise HistoryError(token.line, f"{digits} is out of range")
    return float(digits)


def _unescape(token: _Token) -> str:
    def replacement(match: re.Match[str]) -> str:
        escape = match[1]
        if len(escape) == 5:
            return chr(int(escape[1:], 16))
        if escape not in ESCAPES:
            raise HistoryError(token.line, f"a string has the unknown escape {match[0]!r}")
        return ESCAPES[escape]

    text = ESCAPE.sub(replacement, token.text)
    try:
        # Java writes characters beyond the first 65,536 as two escapes.
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as error:
        raise HistoryError(token.line, "a string has half of a surrogate pair") from error
