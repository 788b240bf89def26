"""What should a log segment hold before it is written: nothing, reserved space, or zeros?

    python bench/preallocation.py [--folder DIR] [--seconds S] [--nodes N]

As many processes as a local cluster has nodes each append blocks to a 16 MiB file of their
own and fdatasync each, all on one disk at once: a file system's journal is shared, so what
one node makes it do the others wait for.  "zeros" were written and synced before the clock
starts; "zeros ahead" are written into reserved space behind a block whenever the zeros of
the last time are used up, and go to disk with that block's sync: their cost is in the figures.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

SEGMENT_BYTES = 16 << 20
AHEAD = {"zeros ahead, 64 KiB": 64 << 10, "zeros ahead, 256 KiB": 256 << 10, "zeros ahead, 1 MiB": 1 << 20}
WAYS = ("nothing", "reserved", *AHEAD, "zeros")
BLOCK_SIZES_BYTES = (200, 2_000, 6_000, 20_000, 50_000)


def open_segment(way: str, folder: str) -> int:
    """A descriptor of a segment that is prepared and durable."""
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        descriptor = os.dup(file.fileno())
    os.unlink(file.name)
    if way != "nothing":
        os.posix_fallocate(descriptor, 0, SEGMENT_BYTES)
    if way == "zeros":
        os.pwrite(descriptor, bytes(SEGMENT_BYTES), 0)
    os.fsync(descriptor)
    return descriptor


def append(way: str, block_bytes: int, folder: str, seconds: float, together: Barrier) -> list[float]:
    """Durations of commits, in seconds."""
    segment = open_segment(way, folder)
    ahead_bytes = AHEAD.get(way, 0)
    zeroed = offset = 0
    block = os.urandom(block_bytes)
    durations_s = []
    together.wait()
    end_s = time.perf_counter() + seconds
    while (began_s := time.perf_counter()) < end_s and offset + block_bytes <= SEGMENT_BYTES:
        os.pwrite(segment, block, offset)
        offset += block_bytes
        if ahead_bytes and offset > zeroed:
            os.pwrite(segment, bytes(ahead_bytes), offset)
            zeroed = offset + ahead_bytes
        os.fdatasync(segment)
        durations_s.append(time.perf_counter() - began_s)
    together.wait()
    return durations_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="on the disk to measure (a new temporary folder)")
    parser.add_argument("--seconds", type=float, default=2.0, help="per row (%(default)s)")
    parser.add_argument("--nodes", type=int, default=3, help="processes on one disk (%(default)s)")
    options = parser.parse_args()
    print("| bytes a block | segment holds | median µs | p99 µs | mean µs |")
    print("| ---: | --- | ---: | ---: | ---: |")
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as folder,
        multiprocessing.Manager() as manager,
        multiprocessing.Pool(options.nodes) as pool,
    ):
        for block_bytes in BLOCK_SIZES_BYTES:
            for way in WAYS:
                together = manager.Barrier(options.nodes)
                work = [(way, block_bytes, folder, options.seconds, together)] * options.nodes
                found = sorted(us * 1e6 for durations_s in pool.starmap(append, work, 1) for us in durations_s)
                print(
                    f"| {block_bytes:,} | {way} | {statistics.median(found):.0f} "
                    f"| {found[int(len(found) * 0.99)]:.0f} | {statistics.fmean(found):.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
