"""What the store answers: the response without its header, which only a door can write.

A message's fields may stand in any order on the wire, and the header is field 1 of every response.  So a whole response
is the header's bytes (`header.HeaderWriter`) followed by `Result.body`.
"""

from __future__ import annotations

import msgspec

from quorate.services.etcd.errors import EtcdError


class Result(msgspec.Struct, frozen=True, gc=False):
    """What came of a command, or of a read."""

    revision: int
    """For the response's header: the store's revision behind it."""
    body: bytes
    """The response's fields, encoded, but for the header; empty with an error."""
    error: EtcdError | None = None
