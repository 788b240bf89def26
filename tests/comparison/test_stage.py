"""How the questions of a comparison are asked."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from quorate.comparison import stage
from quorate.net.grpc.client import Channel
from quorate.net.grpc.status import Code, GrpcError


class Refusing:
    """A channel that answers the first calls with an error."""

    def __init__(self, code: Code, times: int) -> None:
        self.code = code
        self.times = times
        self.calls = 0

    async def unary(self, method: str, message: bytes, timeout_s: float) -> bytes:
        self.calls += 1
        if self.calls <= self.times:
            raise GrpcError(self.code, "etcdserver: leader changed")
        return b""


def ask(refusing: Refusing, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(stage, "RETRY_S", 0.0)
    asyncio.run(stage.ask(cast(Channel, refusing), *stage.put(b"key")))
    return refusing.calls


def test_whoever_is_told_to_ask_again_does(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(Refusing(Code.UNAVAILABLE, 3), monkeypatch) == 4


def test_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = Refusing(Code.UNAVAILABLE, 1_000)
    with pytest.raises(GrpcError):
        ask(refusing, monkeypatch)
    assert refusing.calls == stage.MAX_TRIES


def test_what_asking_again_does_not_change_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = Refusing(Code.INVALID_ARGUMENT, 1)
    with pytest.raises(GrpcError):
        ask(refusing, monkeypatch)
    assert refusing.calls == 1
