"""Settings of a node: what is read, what is refused and how it is said."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.node.config import (
    SERVICE_GROUPS,
    Address,
    ConfigError,
    EtcdConfig,
    LimitsConfig,
    ListenConfig,
    NodeConfig,
    StorageConfig,
    TimingConfig,
    TlsConfig,
    load_config,
    make_config,
    parse_address,
    render_config,
)

MINIMAL = """
cluster = "lab"
node = 1
data = "data"
[members]
0 = "10.0.0.1:3181"
1 = "10.0.0.2:3181"
2 = "10.0.0.3:3181"
"""


def minimal(**changes: Any) -> dict[str, Any]:
    return {**tomllib.loads(MINIMAL), **changes}


def problems(settings: Mapping[str, Any]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        make_config(settings)
    return caught.value.problems


def test_a_minimal_file_gets_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(MINIMAL)
    config = load_config(file)
    assert config.cluster == "lab"
    assert config.node == 1
    assert config.data == tmp_path / "data"
    assert config.protocol is None
    assert config.members == {node: Address(f"10.0.0.{node + 1}", 3181) for node in range(3)}
    assert config.listen.peer == Address("10.0.0.2", 3181)
    assert config.listen.zookeeper == Address("127.0.0.1", 2181)
    assert config.listen.etcd == Address("127.0.0.1", 2379)
    assert config.listen.admin == Address("127.0.0.1", 4181)
    assert config.services == ("zookeeper", "etcd")
    assert config.etcd == EtcdConfig(2 << 30, 3 << 19, 128, 600_000)
    assert config.tls is None
    assert (config.timing, config.limits, config.storage) == (TimingConfig(), LimitsConfig(), StorageConfig())
    assert config.limits.max_frame_bytes == 1 << 20
    assert config.storage.snapshot_log_bytes == 64 << 20


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(MINIMAL)
    config = load_config(file, {"node": 2, "listen.zookeeper": "[::1]:99", "timing.election_timeout_ms": 1000})
    assert config.node == 2
    assert config.listen.peer == Address("10.0.0.3", 3181)
    assert config.listen.zookeeper == Address("::1", 99)
    assert config.timing.election_timeout_ms == 1000


def test_every_problem_is_reported_at_once() -> None:
    found = problems(
        {
            "node": 7,
            "data": "x",
            "members": {"0": "localhost", "1": "a:1"},
            "timing": {"election_timeout_ms": 1},
            "storrage": {},
        }
    )
    assert [problem.split()[0].rstrip(":") for problem in found] == [
        "storrage",
        "cluster",
        "members.0",
        "node",
        "timing.election_timeout_ms",
    ]


def test_the_message_names_the_file_and_lists_the_problems(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(MINIMAL + '[listen]\nadmin = "x"\n[timing]\nheartbeat_interval_ms = 0\n')
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    first, *rest = str(caught.value).splitlines()
    assert first == f"{file}: 2 problems"
    assert len(rest) == 2


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"cluster": "two words"}, 'cluster = "two words": must be 1 to 64 letters'),
        ({"node": 5}, "node = 5: is not in [members], which lists 0, 1, 2"),
        ({"node": True}, "node = true: must be a whole number"),
        ({"data": ""}, 'data = "": must be the path of a folder'),
        ({"protocol": "paxso"}, "protocol = \"paxso\": 'paxso' is no protocol: there are raft, paxos, zab"),
        (
            {"protocol": "paxos:2+1"},
            'protocol = "paxos:2+1": quorums of 2 nodes for phase 1 and 1 for phase 2 need not',
        ),
        ({"protocol": 7}, "protocol = 7: must be one of raft, paxos, zab, or a list"),
        ({"members": {}}, "members has 0 nodes"),
        ({"members": {"one": "a:1"}, "node": 0}, 'members.one = "a:1": a node\'s id must be a whole number'),
        ({"members": {"1": "0.0.0.0:3181"}}, "must be an address that the other nodes can connect to"),
        ({"members": {"0": "a:1", "1": "a:1"}}, "is the address of members.0 already"),
        ({"listen": {"zookeeper": "2181"}}, 'listen.zookeeper = "2181": must be "host:port"'),
        ({"listen": {"zookeeper": 2181}}, 'listen.zookeeper = 2181: must be "host:port"'),
        ({"listen": {"zookeeper": "h:70000"}}, "with a port from 1 to 65535"),
        ({"listen": {"zookeeper": "127.0.0.1:4181"}}, "is taken by listen.admin (127.0.0.1:4181)"),
        ({"listen": {"zookeeper": "0.0.0.0:3181"}}, "is taken by listen.peer (10.0.0.2:3181)"),
        ({"listen": 3}, "listen = 3: must be a section, [listen]"),
        ({"listen": {"zookeper": "h:1"}}, "listen.zookeper: no such setting; did you mean listen.zookeeper?"),
        ({"election_timeout": 400}, "no such setting; did you mean timing.election_timeout_ms?"),
        ({"timing": {"max_connections": 4}}, "no such setting; did you mean limits.max_connections?"),
        ({"timing": {"qqq": 4}}, "known are timing.election_timeout_ms, timing.max_election_timeout_ms"),
        ({"timing": {"heartbeat_interval_ms": 101}}, "must be at most a third of timing.election_timeout_ms (300)"),
        ({"timing": {"election_timeout_ms": 400.5}}, "timing.election_timeout_ms = 400.5: must be a whole number"),
        ({"limits": {"max_connections": 0}}, "limits.max_connections = 0: must be a whole number from 1 to 1000000"),
        ({"limits": {"max_connections": "9"}}, 'limits.max_connections = "9": must be a whole number'),
        ({"limits": {"max_frame_bytes": 8 << 20}}, "limits.max_unread_bytes = 4194304: must be at least"),
        ({"services": []}, "services = []: must be a list of at least one of: zookeeper, etcd"),
        ({"services": 3}, "services = 3: must be a list of at least one of: zookeeper, etcd"),
        ({"services": ["etcd", "consul"]}, '"consul" is no service: there are zookeeper, etcd'),
        ({"services": [["etcd"]]}, "is no service"),
        ({"service": ["etcd"]}, "service: no such setting; did you mean services?"),
        ({"listen": {"etcd": "127.0.0.1:2181"}}, "is taken by listen.zookeeper (127.0.0.1:2181)"),
        ({"etcd": {"quota_bytes": 5}}, "etcd.quota_bytes = 5: must be a whole number from 1048576"),
        ({"etcd": {"quota-bytes": 5}}, "etcd.quota-bytes: no such setting; did you mean etcd.quota_bytes?"),
        (
            {"etcd": {"max_request_bytes": 64 << 20}, "limits": {"max_uncommitted_bytes": 32 << 20}},
            "must be at least etcd",
        ),
        ({"tls": {"cert": "a"}}, "tls.key is not set: a node that speaks TLS needs its private key"),
        ({"tls": {"client_ca": "a"}}, "tls.cert is not set"),
        ({"tls": {"cert": 3, "key": "b"}}, "tls.cert = 3: must be the path of a PEM file"),
        ({"tls": {"certificate": "a"}}, "tls.certificate: no such setting; known are tls.cert, tls.key"),
        ({"storage": {"segment_bytes": 64 << 20}}, "must be at least twice storage.segment_bytes"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(changes: dict[str, Any], expected: str) -> None:
    found = problems(minimal(**changes))
    assert any(expected in problem for problem in found), found


def test_services_come_in_one_order_however_they_are_named() -> None:
    assert make_config(minimal(services=["etcd", "zookeeper"])).services == ("zookeeper", "etcd")
    assert make_config(minimal(), {"services": "etcd"}).services == ("etcd",)


def test_only_the_listeners_of_services_that_are_on_can_collide() -> None:
    listen = {"zookeeper": "127.0.0.1:2000", "etcd": "127.0.0.1:2000"}
    assert make_config(minimal(services=["etcd"], listen=listen)).clients() == {"etcd": Address("127.0.0.1", 2000)}
    assert any("is taken by" in problem for problem in problems(minimal(listen=listen)))


def test_no_two_services_have_one_group() -> None:
    assert len({0, *SERVICE_GROUPS.values()}) == len(SERVICE_GROUPS) + 1
    assert {f"listen.{service}" for service in SERVICE_GROUPS} <= {f"listen.{s.name}" for s in fields(ListenConfig)}


def test_tls_files_are_beside_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(MINIMAL + '[tls]\ncert = "a.pem"\nkey = "/etc/b.pem"\n')
    assert load_config(file).tls == TlsConfig(tmp_path / "a.pem", Path("/etc/b.pem"))
    file.write_text(MINIMAL + '[tls]\ncert = "a.pem"\nkey = "b.pem"\nclient_ca = "c.pem"\n')
    assert load_config(file).tls == TlsConfig(tmp_path / "a.pem", tmp_path / "b.pem", tmp_path / "c.pem")


@pytest.mark.parametrize("missing", ["cluster", "node", "data"])
def test_a_missing_setting_is_named(missing: str) -> None:
    settings = minimal()
    del settings[missing]
    (problem,) = problems(settings)
    assert problem.startswith(f"{missing} is not set: ")


def test_two_hosts_may_use_the_same_port() -> None:
    config = make_config(minimal(listen={"zookeeper": "10.0.0.2:2181", "admin": "127.0.0.1:2181"}))
    assert config.listen.admin.port == config.listen.zookeeper.port


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "there is no such file"), (b"node = ", "is not TOML"), (b"\xff\xfe", "is not TOML")],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, expected: str) -> None:
    file = tmp_path / "node.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=expected):
        load_config(file)


@pytest.mark.parametrize("text", ["", ":1", "h:", "h:0", "h:65536", "h h:1", "::1:5", "[::1]", "h:１", "h:1\n", "*:1"])
def test_bad_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_address(text)


@pytest.mark.parametrize("text", ["localhost:1", "127.0.0.1:65535", "[fe80::1]:2181", "node-1.example.org:80"])
def test_addresses_read_back(text: str) -> None:
    assert str(parse_address(text)) == text


@st.composite
def configs(draw: st.DrawFn) -> NodeConfig:
    ids = draw(st.lists(st.integers(0, 99), min_size=1, max_size=9, unique=True))

    def section(shape: type[Any], *names: str) -> dict[str, int]:
        defaults = shape()
        highest: dict[str, int] = {setting.name: setting.metadata["high"] for setting in fields(shape)}
        return {name: draw(st.integers(getattr(defaults, name), highest[name])) for name in names}

    return make_config(
        {
            "cluster": draw(st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)),
            "node": draw(st.sampled_from(ids)),
            "data": "/" + draw(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)),
            "members": {str(node): f"10.0.0.{node}:{draw(st.integers(1, 1000))}" for node in ids},
            "listen": {"zookeeper": "[::1]:2000", "admin": "0.0.0.0:2001", "etcd": "10.1.1.1:2379"},
            "services": draw(st.lists(st.sampled_from([*SERVICE_GROUPS]), min_size=1)),
            "etcd": section(EtcdConfig, "quota_bytes", "max_txn_ops"),
            **draw(
                st.sampled_from(
                    [{}, {"tls": {"cert": "c", "key": "k"}}, {"tls": {"cert": "c", "key": "k", "client_ca": '"'}}]
                )
            ),
            "timing": section(TimingConfig, "election_timeout_ms"),
            "limits": section(LimitsConfig, "max_connections", "max_tail_bytes", "hold_ms"),
            "storage": section(StorageConfig, "snapshot_log_bytes"),
        }
    )


@given(configs())
def test_what_is_written_reads_back_the_same(config: NodeConfig) -> None:
    assert make_config(tomllib.loads(render_config(config))) == config


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=3))
def test_values_of_any_type_are_refused_and_never_crash(value: Any) -> None:
    for name in ("cluster", "node", "data", "protocol", "services", "members", "listen", "timing", "etcd", "tls"):
        try:
            make_config(minimal(**{name: value}))
        except ConfigError as error:
            assert error.problems
