"""The admin listener: what its pages say, and what it does with bad requests."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from quorate.node.admin import AdminListener, AdminPages, prometheus_lines
from quorate.simulation.scheduler import Simulation


def group(leader: int | None = 0) -> dict[str, Any]:
    return {
        "service": "zookeeper",
        "role": "leader",
        "leader": leader,
        "commit_position": 12345678901,
        "store": {"znodes": 7},
        "door": {"connections": 2},
    }


def status(leader: int | None = 0, log_full: bool = False) -> dict[str, Any]:
    return {"node": 0, "cluster": "orders", "log_full": log_full, "log_bytes": 99, "groups": [group(leader)]}


def pages(**changes: Any) -> AdminPages:
    return AdminPages(lambda: status(**changes), {"/snapshot": lambda: {"started": [1]}})


def test_status_is_json() -> None:
    code, content_type, body = pages().answer("GET", "/status")
    assert (code, content_type) == (HTTPStatus.OK, "application/json")
    assert json.loads(body) == status()


def test_health_is_bad_without_a_leader_or_without_room() -> None:
    assert pages().answer("GET", "/health")[0] == HTTPStatus.OK
    code, _, body = pages(leader=None).answer("GET", "/health")
    assert code == HTTPStatus.SERVICE_UNAVAILABLE
    assert json.loads(body)["without_leader"] == ["zookeeper"]
    assert pages(log_full=True).answer("GET", "/health")[0] == HTTPStatus.SERVICE_UNAVAILABLE


def test_metrics_label_groups_by_service() -> None:
    lines = list(prometheus_lines(status()))
    assert "quorate_log_bytes 99" in lines
    assert 'quorate_is_leader{service="zookeeper"} 1' in lines
    assert 'quorate_commit_position{service="zookeeper"} 12345678901' in lines
    assert 'quorate_store_znodes{service="zookeeper"} 7' in lines


def test_what_is_not_there_is_said_with_what_is() -> None:
    code, _, body = pages().answer("GET", "/stats")
    assert code == HTTPStatus.NOT_FOUND and b"/metrics" in body
    assert pages().answer("GET", "/snapshot")[0] == HTTPStatus.METHOD_NOT_ALLOWED
    assert pages().answer("POST", "/status")[0] == HTTPStatus.METHOD_NOT_ALLOWED
    assert json.loads(pages().answer("POST", "/snapshot")[2]) == {"started": [1]}


def ask(raw: bytes) -> bytes:
    simulation = Simulation()

    async def exchange() -> bytes:
        listener = AdminListener(pages())
        await listener.start("127.0.0.1", 4181)
        reader, writer = await asyncio.open_connection("127.0.0.1", 4181)
        writer.write(raw)
        answer = await reader.read()
        writer.close()
        await listener.stop()
        return answer

    return simulation.run(simulation.boot("10.0.0.1"), exchange())


def test_a_request_over_a_socket() -> None:
    assert ask(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 200")
    head = ask(b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200") and head.endswith(b"\r\n\r\n")


def test_bad_requests_and_silence_get_an_answer() -> None:
    assert b"400" in ask(b"nonsense\r\n\r\n")
    assert b"431" in ask(b"GET /status HTTP/1.1\r\nX: " + b"x" * 20_000)
    assert ask(b"").startswith(b"HTTP/1.1 408")


@given(raw=st.binary(min_size=1, max_size=200))
def test_random_bytes_harm_nothing(raw: bytes) -> None:
    answer = ask(raw)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
