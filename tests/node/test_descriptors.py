"""More clients than file descriptors are never let in."""

from __future__ import annotations

import dataclasses
import logging
import resource
from pathlib import Path

import pytest

from quorate.node.config import Address, LimitsConfig, ListenConfig, NodeConfig
from quorate.node.descriptors import connections_within, fit_connections

CONFIG = NodeConfig(
    "paris",
    0,
    Path("unused"),
    {0: Address("127.0.0.1", 1)},
    ListenConfig(Address("127.0.0.1", 1)),
    services=("zookeeper",),
)


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The process's soft and hard limit, pretended."""
    pretended = [1024, 4096]

    def set_limit(_: int, pair: tuple[int, int]) -> None:
        assert pair[1] == pretended[1]
        if resource.RLIM_INFINITY != pretended[1] < pair[0]:
            raise ValueError("current limit exceeds maximum limit")
        pretended[0] = pair[0]

    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(pretended))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    return pretended


def with_connections(count: int) -> NodeConfig:
    return dataclasses.replace(CONFIG, limits=LimitsConfig(max_connections=count))


def test_the_limit_is_raised_until_all_connections_fit(limits: list[int]) -> None:
    limits[1] = 1 << 20
    config = with_connections(10_000)
    assert fit_connections(config) is config
    assert limits == [65_536, 1 << 20]
    config = with_connections(500_000)
    assert fit_connections(config) is config
    assert limits == [500_128, 1 << 20]
    config = with_connections(100)
    assert fit_connections(config) is config
    assert limits == [500_128, 1 << 20]


@pytest.mark.parametrize("soft", [1024, resource.RLIM_INFINITY])
def test_no_limit_fits_everybody(limits: list[int], soft: int) -> None:
    limits[:] = [soft, resource.RLIM_INFINITY]
    config = with_connections(1_000_000)
    assert fit_connections(config) is config


def test_what_does_not_fit_is_not_let_in_and_said(limits: list[int], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        fitted = fit_connections(with_connections(10_000))
    assert limits == [4096, 4096]
    assert fitted == with_connections(3968)
    (line,) = caplog.messages
    for part in ("limits.max_connections = 10000", "4096 files", "3968 clients", "ulimit -n", "LimitNOFILE=", "10128"):
        assert part in line


def test_each_service_has_room_for_its_clients(limits: list[int], caplog: pytest.LogCaptureFixture) -> None:
    config = dataclasses.replace(with_connections(10_000), services=("zookeeper", "etcd"))
    with caplog.at_level(logging.WARNING):
        assert fit_connections(config).limits.max_connections == 1984
    assert "20128" in caplog.text
    limits[1] = 20_128
    assert fit_connections(config) is config


def test_a_limit_that_cannot_be_raised_is_lived_with(limits: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int, pair: tuple[int, int]) -> None:
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert fit_connections(with_connections(10_000)) == with_connections(896)
    assert limits == [1024, 4096]


def test_a_tiny_limit_is_shared() -> None:
    assert [connections_within(limit) for limit in (2, 64, 256, 1024)] == [1, 32, 128, 896]
