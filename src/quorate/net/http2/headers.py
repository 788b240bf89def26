"""Header blocks: what we send is made once and stateless, what we receive is decoded by `hpack` and cached."""

from __future__ import annotations

from collections.abc import Iterable


class Headers:
    """One decoded header block.  Never changed; equal only to itself, hashed by identity.

    A peer that repeats a request's headers gets the same object again, so what is derived from it can be kept in
    `derived` (the layer above's alone; it lives as long as the object).
    """

    __slots__ = ("authority", "content_length", "derived", "fields", "method", "path", "scheme", "status")

    method: str
    """Pseudo-headers; "" where absent."""
    scheme: str
    authority: str
    path: str
    status: str
    fields: tuple[tuple[str, str], ...]
    """All others in order, names in lower case, values decoded as ISO 8859-1 (one character a byte)."""
    content_length: int
    """-1 where absent."""
    derived: object


def encode(pairs: Iterable[tuple[str, str]]) -> bytes:
    """A header block that any peer can decode at any time: static table and literals without indexing only.

    Values are sent as ISO 8859-1.  Pseudo-headers must come first.
    """
    raise NotImplementedError
