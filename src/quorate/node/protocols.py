"""Which consensus protocol each group of a cluster runs on, and the one way to write that down.

    protocols_of(None, ["zookeeper"])                    {"cluster": "raft", "zookeeper": "zab"}
    protocols_of("paxos", ["etcd"])                      {"cluster": "paxos", "etcd": "paxos"}
    protocols_of("etcd=paxos", ["zookeeper", "etcd"])    {"cluster": "raft", "etcd": "paxos", "zookeeper": "zab"}

A cluster is made with one choice and keeps it: logs, votes and messages of one protocol mean nothing to another.
Settings, marks, handshakes and backups all hold the text of `protocol_text`, so that equal choices are equal texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

PROTOCOL_NAMES: Final = ("raft", "paxos", "zab")
EXAMPLE: Final = "etcd=paxos,zookeeper=zab"

CLUSTER_SERVICE: Final = "cluster"
"""The cluster's own group, which owns the members, goes by this name."""

DEFAULT_PROTOCOLS: Final[Mapping[str, str]] = MappingProxyType(
    {CLUSTER_SERVICE: "raft", "etcd": "raft", "zookeeper": "zab"}
)
"""What a service runs on where nothing else was said: as the system does whose clients it serves."""

DEFAULT_PROTOCOL: Final = "raft"
"""Of a service that is not among them."""


def protocols_of(text: str | None, services: Iterable[str]) -> dict[str, str]:
    """Service -> protocol, in the order of the names, of these services and the cluster's own group.

    `text` is the name of one protocol for all of them, or a list as `etcd=paxos,zookeeper=zab`; a service that it
    leaves out, as with None every one, gets its default.  Raises ValueError that says what is allowed.
    """
    served = sorted({*services, CLUSTER_SERVICE})
    if text is None:
        return {service: DEFAULT_PROTOCOLS.get(service, DEFAULT_PROTOCOL) for service in served}
    if "=" not in text:
        return dict.fromkeys(served, _checked(text.strip()))
    named: dict[str, str] = {}
    for part in text.split(","):
        service, equals, name = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise ValueError(f"{part.strip()!r} must be SERVICE=PROTOCOL, as in {EXAMPLE}")
        if service not in served:
            raise ValueError(f"{service!r} is none of this cluster's groups: there are {', '.join(served)}")
        if service in named:
            raise ValueError(f"{service} is named twice")
        named[service] = _checked(name)
    return {service: named.get(service) or DEFAULT_PROTOCOLS.get(service, DEFAULT_PROTOCOL) for service in served}


def protocols_in(text: str, services: Iterable[str]) -> dict[str, str]:
    """Service -> protocol, of those of these services that the text of a cluster that exists names.

    Raises ValueError.
    """
    if "=" not in text:
        return dict.fromkeys(services, _checked(text))
    named = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
    return {service: _checked(named[service]) for service in services if service in named}


def protocol_text(protocols: Mapping[str, str]) -> str:
    """The one text for a choice: a plain name where all groups run on the same protocol, else the whole list."""
    names = set(protocols.values())
    if len(names) == 1:
        return names.pop()
    return ",".join(f"{service}={name}" for service, name in sorted(protocols.items()))


def _checked(name: str) -> str:
    if name not in PROTOCOL_NAMES:
        raise ValueError(f"{name!r} is no protocol: there are {', '.join(PROTOCOL_NAMES)}")
    return name
