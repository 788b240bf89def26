"""Which consensus protocol each group of a cluster runs on, and the one way to write that down.

    protocols_of(None, ["zookeeper"])                    {"cluster": "raft", "zookeeper": "zab"}
    protocols_of("paxos", ["etcd"])                      {"cluster": "paxos", "etcd": "paxos"}
    protocols_of("etcd=paxos", ["zookeeper", "etcd"])    {"cluster": "raft", "etcd": "paxos", "zookeeper": "zab"}

Paxos may be given sizes of quorums: `paxos:4+2` elects a leader with 4 nodes and decides with 2, which holds for the
voters with which the cluster is formed.

A cluster is made with one choice and keeps it: logs, votes and messages of one protocol mean nothing to another.
Settings, marks, handshakes and backups all hold the text of `protocol_text`, so that equal choices are equal texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from quorate.quorums import AtLeast, Flexible, Majority, Quorum

PROTOCOL_NAMES: Final = ("raft", "paxos", "zab")
_WITH_QUORUMS: Final = re.compile(r"paxos:([1-9])\+([1-9])")
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


def quorum_sizes(name: str) -> tuple[int, int] | None:
    """Of phase 1 and phase 2, where the protocol was given sizes; None where majorities decide."""
    match = _WITH_QUORUMS.fullmatch(name)
    return (int(match[1]), int(match[2])) if match is not None else None


def check_quorums(protocols: Mapping[str, str], voters: int) -> None:
    """Whether so many voters can decide by the sizes that were given.  Raises ValueError that says why not."""
    for name in protocols.values():
        if (sizes := quorum_sizes(name)) is not None:
            Flexible(tuple(range(voters)), *sizes)


def deciding_quorums(names: Iterable[str], voters: tuple[int, ...]) -> list[Quorum | AtLeast]:
    """Of each protocol: which of these voters must take a write."""
    if not voters:
        return []
    sizes = [quorum_sizes(name) for name in names]
    return [Majority(voters) if of is None else Flexible(voters, *of).phase_2 for of in sizes]


def why_members_stay(text: str) -> str | None:
    """Why the members of a cluster with this protocol can never be changed; None where they can be."""
    for part in text.split(","):
        if (sizes := quorum_sizes(part.rpartition("=")[2])) is not None:
            return (
                f"the quorums of this cluster are of fixed sizes ({sizes[0]} nodes elect, {sizes[1]} decide), which "
                "are safe for the voters with which it was formed and no others: its members cannot be changed "
                "(a backup can become another cluster: quorate snapshot restore)"
            )
    return None


def without_sizes(text: str) -> str:
    """The text (as `protocol_text` writes it) of the same protocol with majorities: for a cluster of other voters."""
    text = _WITH_QUORUMS.sub("paxos", text)
    # What were different sizes may be one name now, for which there is one text.
    return protocol_text(dict(part.split("=", 1) for part in text.split(","))) if "=" in text else text


def _checked(name: str) -> str:
    if name not in PROTOCOL_NAMES and quorum_sizes(name) is None:
        known = f"{', '.join(PROTOCOL_NAMES)}, and as paxos:4+2 where 4 nodes are to elect and 2 to decide"
        raise ValueError(f"{name!r} is no protocol: there are {known}")
    return name
