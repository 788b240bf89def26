"""Members come, go and are replaced under load while nodes are killed: nothing that was acknowledged is lost.

QUORATE_CRASH_SECONDS sets how long members go on coming and going after that (`make crash`),
and QUORATE_CRASH_SEED repeats the choices of an earlier run, though not its timing.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from quorate.net.frames import FrameEncoder
from quorate.net.handshake import WIRE_VERSION, Portrait, RefusalCode, Unwelcome
from tests.processes.cluster import READY_S, SMALL_STORAGE, Cluster, Node, eventually, fail, pause, succeed
from tests.processes.conftest import MakeCluster
from tests.processes.writer import Writer, check_nothing_is_lost, wait_for_writes, written

LONGER_SECONDS = float(os.environ.get("QUORATE_CRASH_SECONDS", "0"))
SEED = int(os.environ.get("QUORATE_CRASH_SEED", random.randrange(1 << 32)))
WRITERS = 2
WINDOW = 4
PAUSE_S = 0.005

pytestmark = [pytest.mark.processes, pytest.mark.timeout(4 * LONGER_SECONDS + 300)]


# --- under load and kill -9 ----------------------------------------------------------------------


class Change:
    """The members of a cluster change, and at every step a node is killed at some moment and started again."""

    def __init__(self, cluster: Cluster, writers: list[Writer], chance: random.Random) -> None:
        self.cluster = cluster
        self.writers = writers
        self.chance = chance
        self.kills = 0

    @contextlib.contextmanager
    def _disturbed(self) -> Iterator[None]:
        """kill -9 of a node, whichever it is, some time after this begins."""
        victim = self.chance.choice(self.cluster.nodes)
        delay_s, away_s = self.chance.uniform(0, 1), self.chance.choice([0.0, 0.3, 1.0])

        def strike() -> None:
            pause(delay_s)
            if victim.runs():
                victim.kill()
                self.kills += 1
                pause(away_s)
                self.cluster.start_node(victim)

        striking = threading.Thread(target=strike)
        striking.start()
        try:
            yield
        finally:
            striking.join()

    def _bring_about(self, done: Callable[[Mapping[str, Any]], bool], *command: str) -> None:
        """Run a command until it has had its effect: a killed node may leave the outcome unknown, or be needed."""

        def attempt() -> bool:
            answer = self.cluster.command(*command)
            members = self.cluster.members()
            if members is not None and done(members):
                return True
            assert answer.returncode in (1, 3), f"{command}: without effect, and yet {answer}"
            assert "Traceback" not in answer.stderr, answer.stderr
            said.append(answer.stderr)
            return False

        said: list[str] = []
        eventually(attempt, f"{' '.join(command)}; it said {said}", 2 * READY_S, every_s=0.3)

    def _step(self, voters: list[int], learners: list[int], done: Callable[..., bool], *command: str) -> None:
        with self._disturbed():
            self._bring_about(done, *command)
        self.cluster.wait_settled(voters, learners)
        for writer in self.writers:
            writer.client.set_hosts(",".join(node.address for node in self.cluster.nodes))
        wait_for_writes(self.writers)

    @property
    def voters(self) -> list[int]:
        return sorted(node.node for node in self.cluster.nodes)

    def add(self, number: int) -> None:
        before = self.voters
        node = self.cluster.new_node(number)
        self.cluster.start_node(node)
        self._step(before, [number], lambda members: number in roles(members), "member", "add", str(number), node.peer)
        self.cluster.wait_until_it_came(number)
        self._step(
            [*before, number],
            [],
            lambda members: roles(members).get(number) == "voter",
            *("member", "promote", str(number), "--force"),
        )

    def remove(self, node: Node) -> None:
        remaining = [number for number in self.voters if number != node.node]
        with self._disturbed():
            self._bring_about(
                lambda members: roles(members).get(node.node, "leaving") == "leaving",
                *("member", "remove", str(node.node), "--force"),
            )
        self._settle_without(node, remaining)

    def replace(self, old: Node, number: int) -> None:
        new = self.cluster.new_node(number)
        self.cluster.start_node(new)
        remaining = [number for number in self.voters if number != old.node]

        def done(members: Mapping[str, Any]) -> bool:
            return roles(members).get(number) == "voter" and roles(members).get(old.node, "leaving") == "leaving"

        with self._disturbed():
            # Without waiting, a second attempt would be told that the new node is a member already.
            self._bring_about(
                lambda members: number in roles(members), *("member", "replace", str(old.node), str(number), new.peer)
            )
            eventually(lambda: (members := self.cluster.members()) is not None and done(members), "node replaced")
        self._settle_without(old, remaining)

    def _settle_without(self, gone: Node, remaining: list[int]) -> None:
        self.cluster.has_left(gone)
        self.cluster.wait_settled(remaining)
        assert gone.exit_code() == 0, gone.log_text()[-2000:]
        gone.wait_for_log("was removed from the cluster")
        for writer in self.writers:
            writer.client.set_hosts(",".join(node.address for node in self.cluster.nodes))
        wait_for_writes(self.writers)


def roles(members: Mapping[str, Any]) -> dict[int, str]:
    """Node -> what it is, as `quorate member list` calls it."""
    return {
        member["node"]: "leaving" if member["leaving"] else "voter" if member["voter"] else "learner"
        for member in members["members"]
    }


def test_members_come_and_go_under_load_and_kill_9(make_cluster: MakeCluster) -> None:
    print(f"QUORATE_CRASH_SEED={SEED}")
    chance = random.Random(SEED)
    cluster = make_cluster(nodes=1, settings={**SMALL_STORAGE, "limits": {"max_tail_bytes": 1 << 16}}).start()
    writers = [Writer(cluster, f"writer-{i}", WINDOW, PAUSE_S) for i in range(WRITERS)]
    change = Change(cluster, writers, chance)
    phase = 0
    with written(writers):
        for number in (1, 2, 3):
            change.add(number)
    check_nothing_is_lost(cluster, writers)
    with written(writers):
        change.remove(cluster.leader())
        change.remove(chance.choice(cluster.followers()))
        change.replace(chance.choice(cluster.nodes), 4)
    check_nothing_is_lost(cluster, writers)
    deadline_s = time.monotonic() + LONGER_SECONDS
    next_number = 5
    while time.monotonic() < deadline_s:
        phase += 1
        for writer in writers:
            writer.begin_phase(phase)
        with written(writers):
            change.add(next_number)
            change.replace(chance.choice(cluster.nodes), next_number + 1)
            change.remove(cluster.leader())
        next_number += 2
        check_nothing_is_lost(cluster, writers)
    print(
        f"{change.kills} kills, {sum(writer.acknowledged() for writer in writers)} acknowledged writes all there, "
        f"{sum(writer.unknown() for writer in writers)} of unknown outcome"
    )
    assert change.kills > 0
    for node in [*cluster.nodes, *cluster.former]:
        assert "Traceback" not in node.log_text(), node.log_text()[-4000:]


def test_a_removed_node_stays_out_and_comes_back_with_an_empty_folder_only(make_cluster: MakeCluster) -> None:
    cluster = make_cluster().start()
    client = cluster.client([cluster.nodes[0]])
    client.create("/kept", b"1")
    gone = cluster.node(2)
    succeed(cluster.command("member", "remove", "2", "--force"))
    cluster.has_left(gone)
    assert gone.exit_code() == 0
    since = len(gone.log_text())
    cluster.start_node(gone)
    assert gone.exit_code() == 0, "a node that was removed is told so, and ends"
    gone.wait_for_log("was removed from the cluster", since)

    again = cluster.new_node(3)
    cluster.start_node(again)
    succeed(cluster.command("member", "add", "3", again.peer))
    cluster.wait_until_it_came(3)
    cluster.wait_settled([0, 1], [3])
    succeed(cluster.command("member", "promote", "3", "--force"))
    cluster.wait_settled([0, 1, 3])
    assert cluster.client([again]).get("/kept")[0] == b"1"


# --- bad input -------------------------------------------------------------------------------------


@contextlib.contextmanager
def answering(frame: bytes) -> Iterator[str]:
    """A listener that answers every connection with these bytes; its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(10)
                    connection.recv(1 << 16)
                    connection.sendall(frame)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        # Closing alone does not wake a thread that waits in accept.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(READY_S)


def members_as_told(cluster: Cluster) -> Any:
    """Who the members are, but for what goes on by itself."""
    members = eventually(cluster.members, "a node says who the members are")
    return members["version"], members["cluster_id"], roles(members), [m["peer"] for m in members["members"]]


def refused(cluster: Cluster, *command: str) -> str:
    """What a change says that is refused with exit code 1, and leaves the members as they were."""
    before = members_as_told(cluster)
    said = fail(cluster.command(*command))
    assert members_as_told(cluster) == before
    return said


def test_a_member_that_cannot_be_added_is_refused_with_the_reason(cluster: Cluster, make_cluster: MakeCluster) -> None:
    first = cluster.node(0)
    assert "node 1 is a member already" in refused(cluster, "member", "add", "1", "127.0.0.1:1")
    assert first.peer in refused(cluster, "member", "add", "7", first.peer)
    assert "node 1 is a member already" in refused(cluster, "member", "replace", "0", "1", "127.0.0.1:1")
    assert "there is no node 9" in refused(cluster, "member", "remove", "9")
    assert "there is no node 9" in refused(cluster, "member", "promote", "9")
    assert "there is no node 9" in refused(cluster, "member", "replace", "9", "7", "127.0.0.1:1")

    # A node of another cluster: of another name, and of the same.
    for name in ("another", cluster.name):
        other = make_cluster(nodes=1, name=name).start()
        said = refused(cluster, "member", "add", "7", other.node(0).peer)
        assert "cluster" in said and other.node(0).peer in said, said
        assert not roles(eventually(other.members, "the other cluster answers")).keys() - {0}
        other.close()


def test_a_member_of_another_version_is_refused(cluster: Cluster) -> None:
    encoder = FrameEncoder()
    portrait = Portrait(WIRE_VERSION + 1, "99.0", cluster.name, "", "raft", 7, "0" * 32, "127.0.0.1:1")
    with answering(bytes(encoder.encode(portrait))) as address:
        assert "version" in refused(cluster, "member", "add", "7", address)
    other = Unwelcome("this node speaks wire version 99", RefusalCode.INCOMPATIBLE)
    with answering(bytes(encoder.encode(other))) as address:
        assert "wire version 99" in refused(cluster, "member", "add", "7", address)
    with answering(b"HTTP/1.0 400 Bad Request\r\n\r\n") as address:
        assert address in refused(cluster, "member", "add", "7", address)


def test_the_last_voter_cannot_be_removed(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(nodes=1).start()
    assert "last voter" in refused(cluster, "member", "remove", "0")
    assert "last voter" in refused(cluster, "member", "remove", "0", "--force")
    assert "last voter" in refused(cluster, "member", "remove", "0", "--dry-run")


def test_a_change_that_would_lose_the_quorum_is_refused_unless_forced(cluster: Cluster) -> None:
    [away, *_] = cluster.followers()
    away.kill()
    other = next(node for node in cluster.nodes if node is not away and node is not cluster.leader())
    # Of two voters one could not be reached.
    said = refused(cluster, "member", "remove", str(other.node))
    assert "--force" in said and "quorum" in said, said
    succeed(cluster.command("member", "remove", str(away.node), "--force"))
    cluster.has_left(away)
    cluster.wait_settled(sorted(node.node for node in cluster.nodes))
