"""A node's settings: what they are, what is allowed, and how they are read from TOML.

The dataclasses below are the only list of settings.  Reading, checking and writing walk
their fields, so a setting is added in one place.  All that is wrong with a file is
reported together, because mending a file one error at a time is a chore:

    node.toml: 2 problems
      timing.heartbeat_interval_ms = 300: must be at most a third of timing.election_timeout_ms (300), ...
      limits.max_conections: no such setting; did you mean limits.max_connections?

A relative `data` folder is relative to the file that names it, not to where the node was
started, so that a node finds the same data from everywhere.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias, TypeVar

from quorate.node.protocols import EXAMPLE, PROTOCOL_NAMES, check_quorums, protocol_text, protocols_of

SettingValue: TypeAlias = str | int

SERVICE_GROUPS: Mapping[str, int] = MappingProxyType({"zookeeper": 1, "etcd": 2})
"""Names that the setting `services` may have -> the group that replicates each.

The numbers stand in logs, snapshots and messages, so they never change; 0 is the cluster's own group.
"""

MAX_MEMBERS = 9
"""A write waits for a majority, so more members than this make a cluster slower and hardly safer."""

WILDCARD_HOSTS = frozenset({"0.0.0.0", "::"})
"""Hosts that a listener may have and that nobody can connect to."""


class ConfigError(Exception):
    """One or more settings are wrong.  Each problem names the setting, what came and what is allowed."""

    def __init__(self, source: str, problems: Iterable[str]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = len(self.problems)
        if count == 1:
            message = f"{source}: {self.problems[0]}"
        else:
            message = "\n  ".join([f"{source}: {count} problems", *self.problems])
        super().__init__(message)


class Address(NamedTuple):
    """Where something listens.  As text `host:port`, an IPv6 host in brackets; nothing for `NO_ADDRESS`."""

    host: str
    port: int

    def __str__(self) -> str:
        if self == NO_ADDRESS:
            return ""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


NO_ADDRESS = Address("", 0)
"""Of a listener that there is none of."""

DEFAULT_ADMIN = Address("127.0.0.1", 4181)
DEFAULT_ZOOKEEPER = Address("127.0.0.1", 2181)
DEFAULT_ETCD = Address("127.0.0.1", 2379)


def parse_address(text: str) -> Address:
    """Parse `host:port` or `[ipv6]:port`.  Raises ValueError that says what is allowed."""
    expected = f'{json.dumps(text)}: must be "host:port" with a port from 1 to 65535'
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", text, re.ASCII)
    if match is None:
        raise ValueError(f'{expected} (an IPv6 host in brackets; "0.0.0.0:port" to listen on every interface)')
    port = int(match[3])
    if not 1 <= port <= 65535:
        raise ValueError(expected)
    return Address(match[1] or match[2], port)


def _number(default: int, low: int, high: int) -> Any:
    """A whole number from `low` to `high`, both allowed."""
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True, slots=True)
class ListenConfig:
    """Where this node listens."""

    peer: Address
    """For the other nodes.  Default: the node's own address in [members]."""
    admin: Address = DEFAULT_ADMIN
    """For `quorate status`, health checks and metrics (HTTP)."""
    zookeeper: Address = DEFAULT_ZOOKEEPER
    """For ZooKeeper clients."""
    etcd: Address = DEFAULT_ETCD
    """For etcd clients."""


@dataclass(frozen=True, slots=True)
class TimingConfig:
    """Milliseconds.  The same on every node of a cluster."""

    election_timeout_ms: int = _number(300, 50, 60_000)
    """A follower stands for election after this long without its leader, and up to as long again by chance."""
    max_election_timeout_ms: int = _number(0, 0, 600_000)
    """Where round trips take long, the election timeout grows with them up to this; 0 for ten times the shortest."""
    heartbeat_interval_ms: int = _number(80, 5, 20_000)
    """At most a third of the election timeout, so that two lost heartbeats do not unseat a leader."""

    @property
    def longest_election_timeout_ms(self) -> int:
        return self.max_election_timeout_ms or 10 * self.election_timeout_ms


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """What a node bears before it slows somebody down or sends them away.  Sizes in bytes."""

    max_frame_bytes: int = _number(1 << 20, 1 << 10, 64 << 20)
    """The largest request that a client may send."""
    max_connections: int = _number(10_000, 1, 1_000_000)
    """Client connections to one service of this node."""
    max_requests_in_flight: int = _number(1_000, 1, 1_000_000)
    """Unanswered requests of one connection before the node stops reading from it."""
    max_unread_bytes: int = _number(4 << 20, 64 << 10, 1 << 30)
    """Further unsent replies that a client which has stopped reading may gather before the node closes it."""
    max_bytes_in_flight: int = _number(16 << 20, 64 << 10, 128 << 20)
    """Log entries sent to one peer and not yet acknowledged by it."""
    max_message_bytes: int = _number(1 << 20, 4 << 10, 64 << 20)
    """Log entries in one message to a peer, unless a single entry is larger."""
    max_uncommitted_bytes: int = _number(64 << 20, 64 << 10, 4 << 30)
    """A leader takes no more writes while this much waits to be committed."""
    max_tail_bytes: int = _number(32 << 20, 64 << 10, 4 << 30)
    """Committed log entries kept in memory for lagging peers; one further behind gets a snapshot."""
    hold_ms: int = _number(3_000, 0, 60_000)
    """How long (ms) a write waits for a leader to be elected before it is refused."""


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """The log on disk.  Sizes in bytes."""

    segment_bytes: int = _number(16 << 20, 1 << 16, 1 << 30)
    """Size of one preallocated file of the log."""
    snapshot_log_bytes: int = _number(64 << 20, 1 << 17, 64 << 30)
    """A snapshot is taken when the log has grown by this much since the last one."""


@dataclass(frozen=True, slots=True)
class EtcdConfig:
    """The etcd service.  The same on every node of a cluster; the defaults are etcd's.  Sizes in bytes."""

    quota_bytes: int = _number(2 << 30, 1 << 20, 1 << 40)
    """Keys and values, with their history, take at most this; then writes are refused until some are deleted."""
    max_request_bytes: int = _number(3 << 19, 1 << 10, 64 << 20)
    """The largest request that a client may send."""
    max_txn_ops: int = _number(128, 1, 1_000_000)
    """Operations in one branch of a transaction."""
    watch_progress_interval_ms: int = _number(600_000, 100, 86_400_000)
    """A watch that asked for it is told of progress after this long (ms) without events."""


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """TLS for etcd clients: PEM files, absolute."""

    cert: Path
    """The node's certificate, and those between it and the root."""
    key: Path
    client_ca: Path | None = None
    """Clients must show a certificate that one of these has signed; None where they need none."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """All that one node is told.  Build it with `load_config` or `make_config`, which check it."""

    cluster: str
    """The same on each node of a cluster; nodes refuse peers of another cluster."""
    node: int
    """This node's id: a key of `members`."""
    data: Path
    """The node's data folder, absolute."""
    members: Mapping[int, Address]
    """All nodes of the cluster, with the address where their peers reach them."""
    listen: ListenConfig
    protocol: str | None = None
    """Which one each group runs on (`protocols.protocol_text`); None for that of the data folder, or the defaults."""
    join: bool = False
    """This node is added to a cluster that exists (`quorate member add`); `members` says where some of it is."""
    timing: TimingConfig = TimingConfig()
    limits: LimitsConfig = LimitsConfig()
    storage: StorageConfig = StorageConfig()
    services: tuple[str, ...] = tuple(SERVICE_GROUPS)
    """What the cluster serves, in the order of `SERVICE_GROUPS`; decided for good when it is formed."""
    etcd: EtcdConfig = EtcdConfig()
    tls: TlsConfig | None = None
    """None: etcd clients speak in the clear."""

    def clients(self) -> dict[str, Address]:
        """Service -> where its clients connect, of those that are served."""
        return {service: getattr(self.listen, service) for service in self.services}


def load_config(path: Path, overrides: Mapping[str, SettingValue] | None = None) -> NodeConfig:
    """Read a TOML file.  `overrides` maps dotted names (`"listen.zookeeper"`) to values that win over the file's.

    Raises ConfigError, with all problems at once.
    """
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(str(path), ["there is no such file"]) from None
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"is not TOML: {error}"]) from error
    return make_config(settings, overrides, source=str(path), folder=path.parent)


def make_config(
    settings: Mapping[str, Any],
    overrides: Mapping[str, SettingValue] | None = None,
    *,
    source: str = "configuration",
    folder: Path | None = None,
) -> NodeConfig:
    """Check settings shaped like the TOML file.  `folder` is what relative paths in it are relative to.

    Raises ConfigError, with all problems at once.
    """
    tree = {name: dict(value) if isinstance(value, Mapping) else value for name, value in settings.items()}
    for dotted, value in (overrides or {}).items():
        section, _, name = dotted.rpartition(".")
        target = tree.setdefault(section, {}) if section else tree
        if isinstance(target, dict):
            target[name] = value
    reader = _Reader(tree)
    config = reader.config(folder or Path())
    if config is None or reader.problems:
        raise ConfigError(source, reader.problems)
    return config


def render_config(config: NodeConfig) -> str:
    """The TOML text that reads back as `config`.  Settings at their default are left out."""
    lines = [
        f"cluster = {_toml_text(config.cluster)}",
        f"node = {config.node}",
        f"data = {_toml_text(str(config.data))}",
        *([f"protocol = {_toml_text(config.protocol)}"] if config.protocol is not None else []),
        f"services = {json.dumps(config.services)}",
        *(["join = true"] if config.join else []),
        "",
        "[members]",
        *(f'{node} = "{address}"' for node, address in sorted(config.members.items())),
        "",
        "[listen]",
        *(
            f'{setting.name} = "{getattr(config.listen, setting.name)}"'
            for setting in fields(ListenConfig)
            if _is_heeded(setting.name, config.services) or getattr(config.listen, setting.name) != setting.default
        ),
    ]
    for name in _NUMBER_SECTIONS:
        section = getattr(config, name)
        changed = [s.name for s in fields(section) if getattr(section, s.name) != s.default]
        if changed:
            lines += ["", f"[{name}]", *(f"{setting} = {getattr(section, setting)}" for setting in changed)]
    if config.tls is not None:
        paths = [(setting.name, getattr(config.tls, setting.name)) for setting in fields(TlsConfig)]
        lines += ["", "[tls]", *(f"{name} = {_toml_text(str(path))}" for name, path in paths if path is not None)]
    return "\n".join(lines) + "\n"


def _toml_text(text: str) -> str:
    # TOML's basic strings are JSON's, but TOML has no surrogate pairs and wants DEL escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


_NUMBER_SECTIONS = MappingProxyType(
    {"timing": TimingConfig, "limits": LimitsConfig, "storage": StorageConfig, "etcd": EtcdConfig}
)
_LISTENERS = tuple(setting.name for setting in fields(ListenConfig))
_KNOWN = (
    *("cluster", "node", "data", "protocol", "services", "join", "members", "listen", "tls"),
    *(f"listen.{name}" for name in _LISTENERS),
    *_NUMBER_SECTIONS,
    *(f"{section}.{s.name}" for section, shape in _NUMBER_SECTIONS.items() for s in fields(shape)),
    *(f"tls.{s.name}" for s in fields(TlsConfig)),
)

_Section = TypeVar("_Section")


class _Reader:
    """One pass over the settings that gathers problems instead of stopping at the first."""

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self.tree = tree
        self.problems: list[str] = []

    def config(self, folder: Path) -> NodeConfig | None:
        self._refuse_unknown()
        cluster = self._cluster()
        members = self._members()
        node = self._node(members)
        data = self._data(folder)
        join = self._join()
        services = self._services()
        protocol = self._protocol(services or tuple(SERVICE_GROUPS), 0 if join else len(members))
        listen = self._listen(members.get(node) if node is not None else None, services or ())
        timing = self._numbers("timing", TimingConfig)
        limits = self._numbers("limits", LimitsConfig)
        storage = self._numbers("storage", StorageConfig)
        etcd = self._numbers("etcd", EtcdConfig)
        tls = self._tls(folder)
        if timing is not None:
            self._check_timing(timing)
        if limits is not None:
            self._check_limits(limits, etcd)
        if storage is not None:
            self._check_storage(storage)
        if (
            cluster is None
            or node is None
            or data is None
            or join is None
            or listen is None
            or timing is None
            or limits is None
            or storage is None
            or services is None
            or etcd is None
        ):
            return None
        return NodeConfig(
            cluster,
            node,
            data,
            MappingProxyType(members),
            listen,
            protocol,
            join,
            timing,
            limits,
            storage,
            services,
            etcd,
            tls,
        )

    def _wrong(self, name: str, value: object, allowed: str) -> None:
        shown = json.dumps(value, default=str) if isinstance(value, str | int | float | bool | list) else str(value)
        self.problems.append(f"{name} = {shown}: {allowed}")

    def _missing(self, name: str, what: str) -> None:
        self.problems.append(f"{name} is not set: {what}")

    def _refuse_unknown(self) -> None:
        for name, value in self.tree.items():
            if name not in _KNOWN:
                self._unknown(name)
            elif isinstance(value, dict) and name != "members":
                for inner in value:
                    if f"{name}.{inner}" not in _KNOWN:
                        self._unknown(f"{name}.{inner}")

    def _unknown(self, name: str) -> None:
        # A setting is often right and in the wrong section, so the bare names are compared too.
        last = name.rpartition(".")[2]
        by_last = {known.rpartition(".")[2]: known for known in _KNOWN}
        close = difflib.get_close_matches(name, _KNOWN, 1, 0.8)
        close = close or [by_last[found] for found in difflib.get_close_matches(last, by_last, 1, 0.75)]
        section = name.rpartition(".")[0]
        siblings = [known for known in _KNOWN if known.rpartition(".")[0] == section] or [
            known for known in _KNOWN if "." not in known
        ]
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(siblings)}"
        self.problems.append(f"{name}: no such setting; {hint}")

    def _section(self, name: str) -> dict[str, Any] | None:
        section = self.tree.get(name, {})
        if not isinstance(section, dict):
            self._wrong(name, section, f"must be a section, [{name}]")
            return None
        return section

    def _cluster(self) -> str | None:
        allowed = "1 to 64 letters, digits, '.', '_' or '-', the same on every node of the cluster"
        cluster = self.tree.get("cluster")
        if cluster is None:
            self._missing("cluster", f"give the cluster a name of {allowed}")
        elif not isinstance(cluster, str) or re.fullmatch(r"[A-Za-z0-9._-]{1,64}", cluster) is None:
            self._wrong("cluster", cluster, f"must be {allowed}")
        else:
            return cluster
        return None

    def _join(self) -> bool | None:
        join = self.tree.get("join", False)
        if isinstance(join, bool):
            return join
        self._wrong("join", join, "must be true (this node is added to a cluster that exists) or false")
        return None

    def _members(self) -> dict[int, Address]:
        section = self._section("members")
        if section is None:
            return {}
        if not 1 <= len(section) <= MAX_MEMBERS:
            allowed = f'list from 1 to {MAX_MEMBERS} nodes as `0 = "host:peer-port"`'
            self.problems.append(f"members has {len(section)} nodes: {allowed}")
        members: dict[int, Address] = {}
        for key, value in section.items():
            if re.fullmatch(r"0|[1-9][0-9]{0,8}", key) is None:
                self._wrong(f"members.{key}", value, "a node's id must be a whole number from 0 to 999999999")
                continue
            address = self._address(f"members.{key}", value)
            if address is None:
                continue
            if address.host in WILDCARD_HOSTS:
                self._wrong(f"members.{key}", value, "must be an address that the other nodes can connect to")
            for other, known in members.items():
                if known == address:
                    self._wrong(f"members.{key}", value, f"is the address of members.{other} already")
            members[int(key)] = address
        return members

    def _node(self, members: Mapping[int, Address]) -> int | None:
        node = self.tree.get("node")
        ids = ", ".join(str(member) for member in sorted(members))
        if node is None:
            self._missing("node", f"say which of the members this node is ({ids or 'none are listed'})")
        elif not isinstance(node, int) or isinstance(node, bool) or node < 0:
            self._wrong("node", node, f"must be a whole number, one of the members ({ids or 'none are listed'})")
        elif members and node not in members:
            self._wrong("node", node, f"is not in [members], which lists {ids}")
        else:
            return node
        return None

    def _data(self, folder: Path) -> Path | None:
        data = self.tree.get("data")
        if data is None:
            self._missing("data", "name the folder for this node's log and snapshots")
            return None
        return self._path("data", data, folder, "folder")

    def _path(self, name: str, value: object, folder: Path, kind: str) -> Path | None:
        if not isinstance(value, str) or not value or "\0" in value:
            self._wrong(name, value, f"must be the path of a {kind}")
            return None
        return (folder / value).absolute()

    def _tls(self, folder: Path) -> TlsConfig | None:
        section = self._section("tls")
        if not section:
            return None
        names = [setting.name for setting in fields(TlsConfig)]
        paths = {
            name: self._path(f"tls.{name}", section[name], folder, "PEM file") for name in names if name in section
        }
        for name, what in (("cert", "its certificate"), ("key", "its private key")):
            if name not in section:
                self._missing(f"tls.{name}", f"a node that speaks TLS needs {what}, a PEM file")
        cert, key = paths.get("cert"), paths.get("key")
        return TlsConfig(cert, key, paths.get("client_ca")) if cert is not None and key is not None else None

    def _services(self) -> tuple[str, ...] | None:
        value = self.tree.get("services", [*SERVICE_GROUPS])
        if isinstance(value, str):  # from the command line
            value = value.split(",")
        try:
            return parse_services(value)
        except ValueError as error:
            self._wrong("services", value, str(error))
            return None

    def _protocol(self, services: Collection[str], voters: int) -> str | None:
        """`voters`: how many form the cluster; 0 where that is not known."""
        value = self.tree.get("protocol")
        if value is None:
            return None
        if not isinstance(value, str):
            self._wrong("protocol", value, f"must be one of {', '.join(PROTOCOL_NAMES)}, or a list as {EXAMPLE!r}")
            return None
        try:
            protocols = protocols_of(value, services)
            if voters:
                check_quorums(protocols, voters)
            return protocol_text(protocols)
        except ValueError as error:
            self._wrong("protocol", value, str(error))
            return None

    def _address(self, name: str, value: object) -> Address | None:
        if not isinstance(value, str):
            self._wrong(name, value, 'must be "host:port"')
            return None
        try:
            return parse_address(value)
        except ValueError as error:
            self.problems.append(f"{name} = {error}")
            return None

    def _listen(self, own_member: Address | None, services: Collection[str]) -> ListenConfig | None:
        section = self._section("listen")
        if section is None:
            return None
        # Without a valid [members] entry the peer address has no default; the problem is then
        # reported there, and a stand-in lets the other listeners be checked.
        addresses = {"peer": own_member or Address("127.0.0.1", 3181)}
        addresses |= {s.name: s.default for s in fields(ListenConfig) if isinstance(s.default, Address)}
        for name in _LISTENERS:
            if name in section:
                address = self._address(f"listen.{name}", section[name])
                if address is None:
                    return None
                addresses[name] = address
        taken: dict[str, Address] = {}
        for name, address in addresses.items():
            if not _is_heeded(name, services):
                continue
            for other, known in taken.items():
                if _collide(address, known):
                    self._wrong(f"listen.{name}", str(address), f"is taken by listen.{other} ({known})")
            taken[name] = address
        return ListenConfig(**addresses)

    def _numbers(self, name: str, shape: Callable[..., _Section]) -> _Section | None:
        section = self._section(name)
        if section is None:
            return None
        values: dict[str, int] = {}
        sound = True
        for setting in fields(shape):  # type: ignore[arg-type]
            value = section.get(setting.name, setting.default)
            low, high = setting.metadata["low"], setting.metadata["high"]
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                self._wrong(f"{name}.{setting.name}", value, f"must be a whole number from {low} to {high}")
                sound = False
            else:
                values[setting.name] = value
        return shape(**values) if sound else None

    def _check_timing(self, timing: TimingConfig) -> None:
        if timing.heartbeat_interval_ms * 3 > timing.election_timeout_ms:
            self._wrong(
                "timing.heartbeat_interval_ms",
                timing.heartbeat_interval_ms,
                f"must be at most a third of timing.election_timeout_ms ({timing.election_timeout_ms}), "
                "so that two lost heartbeats do not unseat a leader",
            )
        if timing.longest_election_timeout_ms < timing.election_timeout_ms:
            self._wrong(
                "timing.max_election_timeout_ms",
                timing.max_election_timeout_ms,
                f"must be at least timing.election_timeout_ms ({timing.election_timeout_ms}), or 0",
            )

    def _check_limits(self, limits: LimitsConfig, etcd: EtcdConfig | None) -> None:
        for name in ("max_uncommitted_bytes", "max_unread_bytes"):
            if getattr(limits, name) < limits.max_frame_bytes:
                self._wrong(
                    f"limits.{name}",
                    getattr(limits, name),
                    f"must be at least limits.max_frame_bytes ({limits.max_frame_bytes}), "
                    "or the largest request could never pass",
                )
        if etcd is not None and limits.max_uncommitted_bytes < etcd.max_request_bytes:
            self._wrong(
                "limits.max_uncommitted_bytes",
                limits.max_uncommitted_bytes,
                f"must be at least etcd.max_request_bytes ({etcd.max_request_bytes}), "
                "or the largest request could never pass",
            )

    def _check_storage(self, storage: StorageConfig) -> None:
        if storage.snapshot_log_bytes < 2 * storage.segment_bytes:
            self._wrong(
                "storage.snapshot_log_bytes",
                storage.snapshot_log_bytes,
                f"must be at least twice storage.segment_bytes ({storage.segment_bytes}), "
                "because a snapshot frees whole segments only",
            )


def parse_services(names: object) -> tuple[str, ...]:
    """The services of these names, in the order of `SERVICE_GROUPS`.  Raises ValueError that says what is allowed."""
    known = ", ".join(SERVICE_GROUPS)
    if not isinstance(names, list) or not names:
        raise ValueError(f"must be a list of at least one of: {known}")
    for name in names:
        if not isinstance(name, str) or name not in SERVICE_GROUPS:
            raise ValueError(f"{json.dumps(name, default=str)} is no service: there are {known}")
    return tuple(name for name in SERVICE_GROUPS if name in names)


def _is_heeded(listener: str, services: Collection[str]) -> bool:
    """Where a service that is off would listen does not matter."""
    return listener not in SERVICE_GROUPS or listener in services


def _collide(one: Address, other: Address) -> bool:
    """Whether two listeners of one machine would fight for a port."""
    same_host = one.host == other.host or one.host in WILDCARD_HOSTS or other.host in WILDCARD_HOSTS
    return one.port == other.port and same_host
