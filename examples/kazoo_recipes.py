"""kazoo's recipes, unmodified, on a Quorate cluster: kill nodes while this runs.

Five clients queue for one lock; its holder increments a counter.  The same five stand in an
election.  At the end the counter is held against the increments that were acknowledged.

    .venv/bin/pip install kazoo
    .venv/bin/python examples/kazoo_recipes.py [--hosts HOST:PORT,...] [--seconds 20]
"""

from __future__ import annotations

import argparse
import threading
import time
from dataclasses import dataclass, field

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException

DEFAULT_HOSTS = "127.0.0.1:2181,127.0.0.1:2182,127.0.0.1:2183"
CLIENTS = 5


@dataclass
class Tally:
    """What all clients together have seen."""

    acknowledged: int = 0
    in_doubt: int = 0
    overlaps: int = 0
    longest_wait_s: float = 0.0
    holders: list[str] = field(default_factory=list)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def enter(self, name: str) -> None:
        with self.guard:
            self.overlaps += bool(self.holders)
            self.holders.append(name)

    def leave(self, name: str) -> None:
        with self.guard:
            self.holders.remove(name)


def work(name: str, hosts: str, until: float, tally: Tally) -> None:
    """Take the lock, increment, give it back, until time is up."""
    client = KazooClient(hosts=hosts, timeout=4.0)
    client.start()
    counter = client.Counter("/recipes/counter")
    lock = client.Lock("/recipes/lock", name)
    while time.monotonic() < until:
        asked = time.monotonic()
        try:
            with lock:
                tally.enter(name)
                try:
                    tally.longest_wait_s = max(tally.longest_wait_s, time.monotonic() - asked)
                    queue = [other for other in lock.contenders() if other != name]
                    counter += 1
                    tally.acknowledged += 1
                    print(f"{name} holds the lock; waiting: {' '.join(queue) or 'nobody'}", flush=True)
                finally:
                    tally.leave(name)
        except KazooException as error:
            # The outcome is unknown: the increment may have been made or not.
            tally.in_doubt += 1
            print(f"{name}: {type(error).__name__}, trying again", flush=True)
    client.stop()
    client.close()


def lead(name: str, hosts: str, until: float) -> None:
    """Stand in the election; lead for a second at a time."""
    client = KazooClient(hosts=hosts, timeout=4.0)
    client.start()
    election = client.Election("/recipes/election", name)

    def govern() -> None:
        print(f"{name} is elected", flush=True)
        time.sleep(1)

    while time.monotonic() < until:
        try:
            election.run(govern)
        except KazooException as error:
            print(f"{name}: {type(error).__name__}, standing again", flush=True)
    client.stop()
    client.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", default=DEFAULT_HOSTS)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    tally = Tally()
    client = KazooClient(hosts=options.hosts)
    client.start(timeout=10)
    client.ensure_path("/recipes")
    before = client.Counter("/recipes/counter").value
    until = time.monotonic() + options.seconds
    threads = []
    for number in range(CLIENTS):
        name = f"client-{number}"
        threads.append(threading.Thread(target=work, args=(name, options.hosts, until, tally)))
        threads.append(threading.Thread(target=lead, args=(name, options.hosts, until), daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=options.seconds + 10)
    counted = client.Counter("/recipes/counter").value - before
    print(
        f"counted {counted}; acknowledged {tally.acknowledged}, in doubt {tally.in_doubt}; "
        f"two holders at once: {tally.overlaps} times; longest wait {tally.longest_wait_s:.2f} s"
    )
    client.stop()
    right = tally.acknowledged <= counted <= tally.acknowledged + tally.in_doubt and not tally.overlaps
    return 0 if right else 1


if __name__ == "__main__":
    raise SystemExit(main())
