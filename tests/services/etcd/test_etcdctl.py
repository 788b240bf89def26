"""etcdctl 3.4 against a real etcd and against Quorate: every command says the same, apart from ids and times."""

from __future__ import annotations

import functools
import os

import pytest

from quorate.services.etcd import etcd_pb2 as pb
from tests.processes.cluster import eventually
from tests.services.etcd.peer import Peer, etcdctl
from tests.services.etcd.sessions import Running, Session, begin, compare

pytestmark = pytest.mark.processes

CHECK_PERF = os.environ.get("ETCDCTL_CHECK_PERF")


@pytest.fixture
def sessions(etcd: Peer, quorate: Peer) -> list[Session]:
    return begin([etcd, quorate])


def run_all(sessions: list[Session], commands: str) -> None:
    """A command a line; what stands behind ` <<< ` is its input, with `|` for the ends of lines."""
    for session in sessions:
        for line in commands.strip().splitlines():
            command, _, stdin = line.strip().partition(" <<< ")
            session.run(command, stdin.replace("|", "\n"))
    compare(sessions)


def test_put(sessions: list[Session]) -> None:
    run_all(
        sessions,
        """
        put a 1
        put a 2 --prev-kv
        put new 1 --prev-kv
        put a 3 -w json
        put a 4 --prev-kv -w json
        put a 5 --prev-kv -w fields
        put a <<< from the input
        get a
        put --ignore-value a
        put --ignore-value absent
        put --ignore-value a value
        put --ignore-lease a 6
        put --ignore-lease absent 6
        lease grant 600
        put --lease={lease} a 7
        get a -w fields
        put --ignore-lease a 8
        get a -w fields
        put a 9
        get a -w fields
        put --lease={lease} --ignore-lease a 9
        put --lease=1234 a 10
        put -- -dash --value
        put "with space" "and more"
        get "with space" --hex
        put a
        put
        put "" x
        """,
    )


def test_get_in_all_forms(sessions: list[Session]) -> None:
    run_all(
        sessions,
        """
        put a 3
        put b 1
        put ab 2
        put b 2
        put c 1
        put a 4
        get a
        get absent
        get a c
        get a -w json
        get absent -w json
        get --prefix a
        get --prefix ""
        get --from-key b
        get --from-key ""
        get --prefix --from-key b
        get --prefix a b
        get --prefix --limit=2 "" -w json
        get --prefix --limit=2 ""
        get --prefix "" --rev={r3}
        get a --rev={r1} -w json
        get b --rev={r1} -w json
        get --prefix "" --order=DESCEND
        get --prefix "" --order=ASCEND --sort-by=KEY
        get --prefix "" --order=ASCEND --sort-by=VALUE
        get --prefix "" --order=DESCEND --sort-by=VALUE
        get --prefix "" --order=ASCEND --sort-by=VERSION
        get --prefix "" --order=DESCEND --sort-by=MODIFY
        get --prefix "" --order=DESCEND --sort-by=CREATE
        get --prefix "" --sort-by=CREATE
        get --prefix "" --sort-by=VALUE --limit=1
        get --prefix "" --order=SIDEWAYS
        get --prefix "" --sort-by=COLOUR
        get --prefix "" --keys-only
        get --prefix "" --keys-only -w json
        get --prefix "" --print-value-only
        get --prefix "" --print-value-only --keys-only
        get --prefix "" --consistency=s
        get --prefix "" --consistency=l
        get --prefix "" --consistency=x
        get --prefix "" -w simple
        get --prefix "" -w fields
        get --prefix "" -w json
        get --prefix "" -w table
        get --prefix "" --hex
        get a --rev={r29}
        get ""
        get
        get a b c
        """,
    )


def test_get_as_protobuf(sessions: list[Session]) -> None:
    for session in sessions:
        session.run("put a 1")
        session.run("put b 2")
        session.decode("get --prefix ''", pb.RangeResponse)
        session.decode("put a 2 --prev-kv", pb.PutResponse)
        session.decode("del a --prev-kv", pb.DeleteRangeResponse)
    compare(sessions)


def test_del(sessions: list[Session]) -> None:
    run_all(
        sessions,
        """
        put a 1
        put b 2
        put b1 3
        put c 4
        put d 5
        del absent
        del absent -w json
        del a
        del a --prev-kv
        del b --prev-kv
        del b c --prev-kv
        put b 2
        put b1 2
        del --prefix b -w json --prev-kv
        del --from-key d -w fields
        del --prefix "" --prev-kv
        get --prefix "" -w json
        del ""
        del
        del --prefix --from-key a
        """,
    )


def test_txn(sessions: list[Session]) -> None:
    run_all(
        sessions,
        """
        put a 1
        put b 2
        lease grant 600
        put --lease={lease} l 1
        txn <<< value("a") = "1"||put a 2||put a 3||
        get a
        txn -i <<< value("a") = "1"||put a 2||put a 3|get b||
        get a
        txn <<< val("a") > "2"||get a||get b||
        txn <<< val("a") < "2"||get a||get b||
        txn <<< version("a") = "3"||get a||get b||
        txn <<< ver("absent") = "0"||put absent 1||get absent||
        txn <<< create("a") > "0"||del b --prev-kv|get b||||
        txn <<< c("a") < "1"||get a||del a||
        txn <<< mod("b") = "0"||put b 3 --prev-kv||get b||
        txn <<< m("b") > "2"||put b 4 --prev-kv||get b||
        txn <<< lease("l") = "{lease_number}"||get l||get a||
        txn <<< lease("l") = "0"||get l||get a||
        txn <<< val("a") = "3"|val("b") = "4"||get a --prefix|get b||get --from-key a||
        txn <<< |||put x 1|
        txn <<< ||put x 1|put y 2|del b|get x||put z 1||
        txn -w json <<< ||put x 1|get x|del y||||
        txn -w fields <<< ||put x 1|get x|del a|||
        txn <<< ||put x 1|put x 2||||
        txn <<< ||put x 1|del --prefix x||||
        txn <<< ||get a --rev 1000000||||
        txn <<< ||put --lease=1234 x 1||||
        txn <<< ||put "" 1||||
        txn <<< nonsense||||
        txn <<< val("a") = 3||||
        txn <<< ||fly a||||
        get --prefix "" -w json
        """,
    )


def test_leases(sessions: list[Session]) -> None:
    run_all(
        sessions,
        """
        lease list
        lease list -w json
        lease grant 600
        lease timetolive {lease}
        put --lease={lease} k1 1
        put --lease={lease} k2 2
        lease timetolive {lease} --keys
        lease timetolive {lease} --keys -w json
        lease timetolive {lease} -w fields
        put k1 3
        lease timetolive {lease} --keys
        lease list
        lease list -w json
        lease keep-alive --once {lease}
        lease keep-alive --once {lease} -w json
        lease grant 600 -w json
        lease revoke {lease}
        lease revoke {lease}
        lease timetolive {lease}
        lease timetolive {lease} --keys -w json
        lease keep-alive --once {lease}
        lease keep-alive {lease}
        get --prefix "" -w json
        lease grant 0
        lease grant 1
        lease grant -- -5
        lease grant 9000000001
        lease grant soon
        lease revoke nothex
        """,
    )


def test_a_lease_is_kept_alive_until_it_is_revoked(sessions: list[Session]) -> None:
    for session in sessions:
        session.run("lease grant 5")
        with session.start("lease keep-alive {lease}") as keeping:
            keeping.wait_for("keepalived with TTL(5)")
            session.run("lease revoke {lease}")
            code = keeping.end()
        lines = sorted(set(keeping.output.splitlines()))
        session.note("lease keep-alive", *lines, keeping.errors, f"exit code {code}")
    compare(sessions)


def test_compaction(sessions: list[Session]) -> None:
    run_all(
        sessions,
        """
        put a 1
        put a 2
        put a 3
        del a
        put a 4
        compaction {r2}
        get a --rev={r1}
        get a --rev={r2}
        compaction {r2}
        compaction {r1}
        compaction {r3} --physical
        compaction {r20}
        compaction 0
        compaction nonsense
        compaction
        get a --rev={r2}
        get a --rev={r4} -w json
        get a -w json
        watch a --rev={r1}
        watch -w json a --rev={r1}
        compaction {r5} -w json
        """,
    )


def test_endpoints_and_members(sessions: list[Session]) -> None:
    run_all(
        sessions,
        """
        put a 1
        endpoint status
        endpoint status -w json
        endpoint status -w table
        endpoint status -w fields
        endpoint status --cluster
        endpoint health
        endpoint health -w json
        endpoint health -w table
        endpoint health --cluster
        member list
        member list -w json
        member list -w table
        member list -w fields
        """,
    )


def changes(session: Session) -> None:
    """What the watches below are told of."""
    session.run("put foo 1")
    session.run("put foo 2")
    session.run("put foobar 3")
    session.run("put other 4")
    session.run("del foo")
    session.run("del --prefix foo")
    session.run("put fooend END")


@pytest.mark.parametrize(
    ("options", "last"),
    [
        ("--prefix foo --rev={r1}", "END\n"),
        ("--prefix foo --rev={r1} --prev-kv", "END\n"),
        ("--prefix foo --rev={r3}", "END\n"),
        ("--prefix foo --rev={r1} -w json", '"Created":false}\n'),
        ("--prefix foo --rev={r1} -w fields", '"Value" : "END"\n"Lease" : 0\n'),
        ("foo foox --rev={r1}", "END\n"),
        ("--prefix '' --rev={r1} --hex --prev-kv", "\\x45\\x4e\\x44\n"),
        ("--prefix foo --rev={r1} -- sh -c 'env | grep ETCD_WATCH_ | sort'", 'VALUE="END"\n'),
        ("foo --rev={r1} -- sh -c 'echo $ETCD_WATCH_VALUE; exit 3'", '"1"'),
        ("--rev={r1} foox foo", ""),
    ],
)
def test_watch_of_the_past(sessions: list[Session], options: str, last: str) -> None:
    for session in sessions:
        changes(session)
        with session.start(f"watch {options}") as watch:
            watch.wait_for(last)
            code = watch.interrupt() if "exit" not in options else watch.end()
        session.note(f"watch {options}", watch.output, watch.errors, str(code))
    compare(sessions)


@pytest.mark.parametrize("options", ["foo", "--prefix foo", "--prefix foo --prev-kv"])
def test_watch_of_what_comes(sessions: list[Session], options: str) -> None:
    for session in sessions:
        with session.start(f"watch {options}") as watch:
            watch_has_begun(session, watch)
            changes(session)
            session.run("put foo END")
            watch.wait_for("foo\nEND\n")
            watch.interrupt()
        session.note(f"watch {options}", watch.output.partition("MARK\n")[2], watch.errors)
    compare(sessions)


def watch_has_begun(session: Session, watch: Running) -> None:
    """Write foo until the watch tells of it, then the value MARK."""

    def told() -> bool:
        etcdctl(session.peer.endpoints, "put", "foo", "start")
        return watch.says("start", 0.2)

    eventually(told, "a watch tells of what is written")
    etcdctl(session.peer.endpoints, "put", "foo", "MARK")
    watch.wait_for("MARK\n")


def test_interactive_watch(sessions: list[Session]) -> None:
    for session in sessions:
        changes(session)
        with session.start("watch -i") as watch:
            # One after the other: each prints when its events come.
            watch.write(f"watch --rev={session.base + 1} foo")
            watch.wait_for("PUT\nfoo\n2\nDELETE\nfoo\n\n")
            watch.write(f"watch --rev={session.base + 1} --prev-kv --prefix fooe")
            watch.wait_for("END\n")
            watch.write(f"watch --rev={session.base + 2} foo -- printenv ETCD_WATCH_EVENT_TYPE")
            watch.wait_for('"DELETE"\n')
            watch.write("nonsense")
            watch.write("watch")
            watch.write("progress")
            watch.wait_for("progress notify: ")
            watch.write(f"watch --rev={session.base + 4} other")
            watch.wait_for("PUT\nother\n4\n")
            code = watch.close_input()
        session.note("watch -i", watch.output, watch.errors, f"exit code {code}")
    compare(sessions)


def test_a_running_watch_is_cancelled_by_nothing_but_its_past(sessions: list[Session]) -> None:
    for session in sessions:
        changes(session)
        with session.start("watch --prefix foo") as watch:
            watch_has_begun(session, watch)
            session.run(f"compaction {session.revision()}")
            session.run("put foo END")
            watch.wait_for("foo\nEND\n")
            watch.interrupt()
        session.note("watch", watch.output.partition("MARK\n")[2], watch.errors)
        session.said = [said for said in session.said if "compaction" not in said]
    compare(sessions)


def test_lock(sessions: list[Session]) -> None:
    for session in sessions:
        session.run("lock mutex -- sh -c 'echo held $ETCD_LOCK_KEY'")
        session.run("lock mutex --ttl=20 -- sh -c 'exit 7'")
        with session.start("lock mutex") as first:
            first.wait_for("mutex/")
            with session.start("lock mutex") as second:
                keys = eventually(functools.partial(waiting_for_lock, session, 2), "the second waits")
                assert not second.says("mutex", 0.1)
                first_code = first.interrupt()
                second.wait_for("mutex/")
                second_code = second.interrupt()
        session.note("lock", str(len(keys)), first.output, first.errors, f"exit codes {first_code}, {second_code}")
        session.note("lock", second.output, second.errors)
        session.run("get --prefix mutex")
    compare(sessions)


def waiting_for_lock(session: Session, count: int) -> list[str]:
    """The keys of those who hold or want the lock, once they are so many."""
    keys = etcdctl(session.peer.endpoints, "get", "--prefix", "mutex/", "--keys-only").stdout.split()
    return keys if len(keys) == count else []


def test_elect(sessions: list[Session]) -> None:
    for session in sessions:
        with session.start("elect chair one") as first:
            first.wait_for("one\n")
            with session.start("elect chair two") as second, session.start("elect -l chair") as observer:
                observer.wait_for("one\n")
                first_code = first.interrupt()
                second.wait_for("two\n")
                observer.wait_for("two\n")
                second_code = second.interrupt()
                observer.interrupt()
        session.note("elect", first.output, first.errors, f"exit codes {first_code}, {second_code}")
        session.note("elect", second.output, second.errors)
        session.note("elect -l", observer.output)
        session.run("get --prefix chair")
    compare(sessions)


def test_what_is_wrong_is_said_alike(sessions: list[Session]) -> None:
    run_all(
        sessions,
        """
        put a 1
        get a --rev={r29}
        get a --rev=-1
        put "" 1
        get ""
        put --lease=abc a 1
        put --lease=xyz a 1
        lease revoke 77
        lease timetolive 77
        fly
        """,
    )


@pytest.mark.skipif(not CHECK_PERF, reason="takes a minute for each server: ETCDCTL_CHECK_PERF=1 to run it")
def test_check_perf(quorate: Peer) -> None:
    answer = etcdctl(quorate.endpoints, "check", "perf", "--load=s", within_s=180)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    passed = [line for line in answer.stdout.splitlines() if line.startswith("PASS")]
    assert passed and "FAIL" not in answer.stdout, answer.stdout
