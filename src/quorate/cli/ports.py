"""The ports of a cluster on one machine: node i listens on each base port + i."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from quorate.cli.errors import CommandError
from quorate.node.config import Address

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class BasePorts:
    """The ports of node 0."""

    clients: Mapping[str, int]
    """Service -> port, of those that are served."""
    peer: int
    admin: int

    def addresses(self, node: int) -> dict[str, Address]:
        """Listener -> address of one node."""
        bases = {**self.clients, "peer": self.peer, "admin": self.admin}
        return {listener: Address(HOST, port + node) for listener, port in bases.items()}


def check_ports(ports: BasePorts, nodes: int) -> None:
    """Raise CommandError, naming the option to change, unless all ports are distinct, valid and free."""
    owners: dict[int, str] = {}
    problems: list[str] = []
    for node in range(nodes):
        for listener, address in ports.addresses(node).items():
            use = f"port {address.port} (--{listener}-port, node {node})"
            if not 1 <= address.port <= 65535:
                problems.append(f"{use} does not exist: ports go from 1 to 65535")
            elif address.port in owners:
                problems.append(f"{use} is wanted by {owners[address.port]} too")
            else:
                owners[address.port] = f"--{listener}-port of node {node}"
                problem = _port_problem(address)
                if problem:
                    problems.append(f"{use} {problem}")
    if problems:
        raise CommandError(
            "\n  ".join(["the ports cannot be used; choose others with the option that is named:", *problems])
        )


def _port_problem(address: Address) -> str:
    # The same socket option as the node's own listeners have, so that connections of an
    # earlier run that linger in TIME_WAIT do not count as use.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return "is in use by another program"
            return f"cannot be used: {error.strerror}"
    return ""
