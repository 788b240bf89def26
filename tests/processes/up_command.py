"""`quorate up` as its users run it, on free ports."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.processes.cluster import PROTOCOL, READY_S, PortReservation, eventually

NODES = 3


class UpCommand:
    """A cluster of three nodes in a folder of the test's; its output goes to a file."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.ports = {name: block_of_ports(NODES) for name in ("zookeeper", "etcd", "peer", "admin")}
        """Of node 0; node i listens on port + i."""
        self._output = folder / "up.txt"
        self._process: subprocess.Popen[str] | None = None

    def start(self, *arguments: str) -> None:
        options = [text for name, port in self.ports.items() for text in (f"--{name}-port", str(port))]
        options += ["--protocol", PROTOCOL] if PROTOCOL is not None else []
        command = [sys.executable, "-m", "quorate", "up", "--data", str(self.data), *options, *arguments]
        with self._output.open("w") as file:
            self._process = subprocess.Popen(command, stdout=file, stderr=file, text=True)

    def said(self) -> str:
        """Since it was started last."""
        return self._output.read_text()

    def what_to_try(self) -> str:
        """Wait until it has explained that; returns all that it said."""
        return eventually(lambda: said if "Ctrl-C" in (said := self.said()) else None, "up explains what to try")

    def exit_code(self) -> int:
        """Wait for its end."""
        assert self._process is not None
        return self._process.wait(READY_S)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop, if it runs; returns its exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self.exit_code()


def block_of_ports(count: int) -> int:
    """The first of `count` free ports in a row."""
    reservation = PortReservation()
    ports = reservation.take(40)
    reservation.release()
    for port in ports:
        if all(is_free(port + i) for i in range(count)):
            return port
    raise AssertionError(f"no {count} free ports in a row near any of {ports}")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
