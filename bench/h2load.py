"""nghttp's `h2load` with one gRPC request, sent again and again: Debian's `nghttp2-client`.

h2load counts every answer with HTTP status 200 as a success and sees no gRPC status, which stands in the trailers.  So
who uses this must see by other means that the requests did what they should (`Load.response_bytes` helps).
Its log of latencies costs it a system call for each answer, and with it the faster server more of the machine: so
throughput is measured without it, and latencies under the same load after that.
One h2load sends one body, hence writes one key; `run` starts one for each body, and splits the connections among them.
"""

from __future__ import annotations

import re
import shutil
import statistics
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cluster import BenchmarkError, MissingPeer

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Load(msgspec.Struct, frozen=True):
    """What came of a load.  Latencies in microseconds."""

    requests: int
    """Answered while throughput was measured; there were others before and after."""
    per_second: float
    p50_us: float
    p99_us: float
    response_bytes: float
    """Of DATA frames, for each answer."""
    failed: int


@dataclass(frozen=True)
class Shape:
    connections: int
    streams: int
    """At a time, on each connection."""

    def __str__(self) -> str:
        return f"{self.connections}x{self.streams}"


def frame(message: bytes) -> bytes:
    """A gRPC message, not compressed."""
    return struct.pack(">BI", 0, len(message)) + message


def run(
    endpoint: str, path: str, bodies: Sequence[bytes], shape: Shape, seconds: int, warmup_seconds: int, folder: Path
) -> Load:
    """Each body is a request message.  Raises BenchmarkError."""
    program = shutil.which("h2load")
    if program is None:
        raise MissingPeer("h2load is not installed: scripts/install-peers.sh installs it")
    if shape.connections % len(bodies):
        raise BenchmarkError(f"{shape.connections} connections cannot be split among {len(bodies)} keys")
    commands = []
    for i, body in enumerate(bodies):
        data = folder / f"body-{i}"
        data.write_bytes(frame(body))
        commands.append(
            [
                *(program, "-d", str(data), "--warm-up-time", str(warmup_seconds)),
                *("-c", str(shape.connections // len(bodies)), "-m", str(shape.streams)),
                *("-H", "content-type: application/grpc", "-H", "te: trailers", f"http://{endpoint}{path}"),
            ]
        )
    outputs = side_by_side([[*command, "-D", str(seconds)] for command in commands])
    logs = [folder / f"h2load-{i}.log" for i in range(len(commands))]
    for log in logs:
        log.unlink(missing_ok=True)
    logged_seconds = max(1, seconds // 2)
    side_by_side(
        [
            [*command, "-D", str(logged_seconds), "--log-file", str(log)]
            for command, log in zip(commands, logs, strict=True)
        ]
    )
    return summary(outputs, [int(line.split(b"\t")[2]) for log in logs for line in log.read_bytes().splitlines()])


def side_by_side(commands: Sequence[Sequence[str]]) -> list[str]:
    """What they printed.  Raises BenchmarkError."""
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for command in commands
    ]
    outputs = [process.communicate()[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        if process.returncode:
            raise BenchmarkError(f"h2load ended with {process.returncode}:\n{output}")
    return outputs


def summary(outputs: Sequence[str], latencies_us: list[int]) -> Load:
    """Of what several h2load printed, which ran side by side."""
    done = failed = 0
    per_second = data_bytes = 0.0
    for output in outputs:
        rate = re.search(r"finished in .*?, ([0-9.]+) req/s", output)
        counts = re.search(
            r"requests: .* (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output
        )
        data = re.search(r"traffic: .* ([0-9.]+)([KMG]?)B \(\d+\) data", output)
        if rate is None or counts is None or data is None:
            raise BenchmarkError(f"what h2load printed is not understood:\n{output}")
        per_second += float(rate[1])
        done += int(counts[2])
        failed += sum(map(int, counts.group(3, 4, 5)))
        data_bytes += float(data[1]) * UNITS[data[2]]
    if not done or not latencies_us:
        raise BenchmarkError(f"nothing was answered:\n{outputs[0]}")
    latencies_us.sort()
    return Load(
        requests=done,
        per_second=per_second,
        p50_us=statistics.median(latencies_us),
        p99_us=latencies_us[len(latencies_us) * 99 // 100],
        response_bytes=data_bytes / done,
        failed=failed,
    )
