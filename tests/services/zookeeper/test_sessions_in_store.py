from __future__ import annotations

import pytest

from quorate.services.zookeeper import commands
from quorate.services.zookeeper.commands import SESSION_ENDED, SESSION_OPENED, session_event
from quorate.services.zookeeper.protocol import Create, Op
from quorate.services.zookeeper.store import Store
from tests.services.zookeeper.store_helpers import PASSWORD, SESSION, Writer

BAD_ARGUMENTS, SESSION_EXPIRED, AUTH_FAILED, SESSION_MOVED = -8, -112, -115, -118


def test_created_session() -> None:
    store = Store()
    (result,) = store.apply([commands.create_session(SESSION, 4000, PASSWORD, 2)], 1)
    assert result[:2] == (0, 1)
    assert commands.read_session_reply(result[2]) == (4000, 1)
    assert result[3] == (session_event(SESSION_OPENED, SESSION),)
    session = store.sessions[SESSION]
    assert (session.timeout_ms, session.password, session.owner, session.generation) == (4000, PASSWORD, 2, 1)


@pytest.mark.parametrize(
    ("session_id", "password"), [(0, PASSWORD), (SESSION, PASSWORD), (5, b"short"), (5, PASSWORD + b"x")]
)
def test_session_refused(session_id: int, password: bytes) -> None:
    writer = Writer()
    assert writer.apply(commands.create_session(session_id, 4000, password, 1))[0] == BAD_ARGUMENTS
    assert list(writer.store.sessions) == [SESSION]


def test_attach_moves_the_session_and_silences_its_former_owner() -> None:
    writer = Writer()
    result = writer.apply(commands.attach(SESSION, PASSWORD, 9000, 3))
    assert commands.read_session_reply(result[2]) == (9000, 2)
    session = writer.store.sessions[SESSION]
    assert (session.owner, session.timeout_ms, session.generation) == (3, 9000, 2)
    assert writer.create(b"/late")[0] == SESSION_MOVED
    assert writer.apply(commands.close_session(SESSION, writer.generation))[0] == SESSION_MOVED
    writer.generation = 2
    assert writer.create(b"/a")[0] == 0


def test_attach_with_another_password_changes_nothing() -> None:
    writer = Writer()
    assert writer.apply(commands.attach(SESSION, b"x" * 16, 9000, 3))[0] == AUTH_FAILED
    assert writer.apply(commands.attach(SESSION + 1, PASSWORD, 9000, 3))[0] == SESSION_EXPIRED
    assert writer.create(b"/a")[0] == 0


def test_unknown_session_writes_nothing() -> None:
    store = Store()
    (result,) = store.apply([commands.write(9, 1, Op.CREATE, Create(b"/a", b"").encode())], 1)
    assert result == (SESSION_EXPIRED, 1, b"", ())
    assert store.tree.get(b"/a") is None


@pytest.mark.parametrize("end", [commands.close_session, commands.expire_session])
def test_end_deletes_ephemerals_in_one_zxid(end: object) -> None:
    assert callable(end)
    writer = Writer()
    other = Writer(writer.store, SESSION + 1)
    writer.create(b"/p")
    writer.create(b"/p/b", flags=1)
    writer.create(b"/p/a", flags=1)
    writer.create(b"/e", flags=1)
    other.create(b"/p/other", flags=1)
    result = writer.apply(end(SESSION, writer.generation))
    assert result == (
        0,
        8,
        b"",
        (
            (2, b"/e"),
            (4, b"/"),
            (2, b"/p/a"),
            (4, b"/p"),
            (2, b"/p/b"),
            (4, b"/p"),
            session_event(SESSION_ENDED, SESSION),
        ),
    )
    assert list(writer.store.sessions) == [SESSION + 1]
    assert writer.store.tree.ephemerals == {SESSION + 1: {b"/p/other"}}
    assert (writer.stat(b"/p").cversion, writer.stat(b"/p").pzxid, writer.stat(b"/p").num_children) == (5, 8, 1)
    assert writer.create(b"/a")[0] == SESSION_EXPIRED


def test_attach_saves_a_session_from_an_expiry_that_was_decided_before() -> None:
    writer = Writer()
    expire = commands.expire_session(SESSION, writer.generation)
    writer.apply(commands.attach(SESSION, PASSWORD, 4000, 2))
    assert writer.apply(expire)[0] == SESSION_MOVED
    assert SESSION in writer.store.sessions
