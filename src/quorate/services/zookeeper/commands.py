"""Commands: what the door proposes and the store applies.

A command is a header and a body.  The header names the session, the generation of its
owner (so that a former owner's commands, still on their way when the session moves, come
to nothing) and the operation.  For a client's write the body is the request's record
exactly as the client sent it: nothing is decoded twice and nothing encoded again.

Everything random (session ids, passwords) is drawn before a command is made.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from quorate.services.zookeeper.jute import pack_buffer
from quorate.services.zookeeper.protocol import Op

COMMAND_HEADER: Final = Struct(">qqi")
"""session id, owner generation, operation."""

ATTACH: Final = -100
"""A session's client came back, maybe to another node.  Not an operation of ZooKeeper's protocol."""
EXPIRE: Final = -101
"""The leader heard nothing from a session for its timeout.  Not an operation of ZooKeeper's protocol."""

SESSION_OPENED: Final = 100
SESSION_ENDED: Final = 101
"""Events that are for doors alone: a session was created or attached, or was closed or expired.

In the place of a path they have the session id, 8 bytes.  Every door needs them, also for
commands of other nodes: to close connections whose session is elsewhere or gone, and, beside
the leader, to keep the clock of sessions.
"""

_INT: Final = Struct(">i")
_SESSION_ID: Final = Struct(">q")
_SESSION_REPLY: Final = Struct(">iq")


def write(session_id: int, generation: int, op: int, body: bytes) -> bytes:
    """A client's create, delete, setData, setACL, multi or create2; `body` is the request's jute record."""
    return COMMAND_HEADER.pack(session_id, generation, op) + body


def create_session(session_id: int, timeout_ms: int, password: bytes, owner: int) -> bytes:
    """A new session on node `owner`.  Its generation is the zxid of the result.

    BAD_ARGUMENTS where the id is 0 or taken or the password is not PASSWORD_BYTES long.
    """
    body = _INT.pack(timeout_ms) + pack_buffer(password) + _INT.pack(owner)
    return COMMAND_HEADER.pack(session_id, 0, Op.CREATE_SESSION) + body


def attach(session_id: int, password: bytes, timeout_ms: int, owner: int) -> bytes:
    """Move the session to node `owner`, with a new timeout.  Its generation becomes the zxid of the result.

    SESSION_EXPIRED where there is no such session, AUTH_FAILED where the password is another.
    """
    body = pack_buffer(password) + _INT.pack(timeout_ms) + _INT.pack(owner)
    return COMMAND_HEADER.pack(session_id, 0, ATTACH) + body


def close_session(session_id: int, generation: int) -> bytes:
    """The client closes its session: its ephemeral znodes are deleted, all in one zxid."""
    return COMMAND_HEADER.pack(session_id, generation, Op.CLOSE_SESSION)


def expire_session(session_id: int, generation: int) -> bytes:
    """As close_session, by the leader, with the generation that it saw expire: an attach in between saves it."""
    return COMMAND_HEADER.pack(session_id, generation, EXPIRE)


def pack_session_reply(timeout_ms: int, generation: int) -> bytes:
    """The result body of create_session and attach."""
    return _SESSION_REPLY.pack(timeout_ms, generation)


def read_session_reply(body: bytes) -> tuple[int, int]:
    """(timeout in ms, generation) of a successful create_session or attach."""
    timeout_ms, generation = _SESSION_REPLY.unpack(body)
    return timeout_ms, generation


def session_event(event_type: int, session_id: int) -> tuple[int, bytes]:
    """SESSION_OPENED or SESSION_ENDED, as it stands among a result's events."""
    return (event_type, _SESSION_ID.pack(session_id))


def read_session_event(item: bytes) -> int:
    """The session id of such an event."""
    session_id: int = _SESSION_ID.unpack(item)[0]
    return session_id
