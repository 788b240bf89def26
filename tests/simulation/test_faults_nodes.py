"""Faults of machines, disks and clocks do what they say, end when they should, and the supervisor knows them."""

from __future__ import annotations

import pytest

from quorate.simulation.cluster import client_host, host_of
from quorate.simulation.disk import SYNC_S
from quorate.simulation.faults import FAULTS
from quorate.simulation.faults.disks import noticeable_bits
from quorate.simulation.plan import Injection
from quorate.storage.log_errors import CorruptLog
from quorate.storage.log_recovery import read_log
from quorate.storage.log_segments import segment_path
from tests.simulation.faults_stage import Stage


def test_a_crashed_node_is_down_for_its_time() -> None:
    stage = Stage()
    leader = stage.elected()
    stage.begin("crash", "leader", for_s=2.0)
    assert stage.world.up() == [node for node in range(3) if node != leader]
    stage.pass_time(1.99)
    assert not stage.cluster.is_up(leader)
    stage.pass_time(0.02)
    assert stage.cluster.is_up(leader)
    assert (stage.count("crash"), stage.count("crashes"), stage.count("restarts")) == (1, 1, 1)
    assert stage.count("power losses") == 0


def test_all_crash_at_once_and_come_back() -> None:
    stage = Stage()
    stage.write_from(0)
    stage.pass_time(2)
    stage.begin("crash", "all", for_s=0.5)
    assert stage.world.up() == []
    stage.pass_time(0.51)
    assert stage.world.up() == [0, 1, 2]
    stage.elected()
    stage.pass_time(3)
    assert stage.writes_within(1.0) > 5
    assert not stage.violations


def test_a_node_comes_back_only_when_no_fault_wants_it_down() -> None:
    stage = Stage()
    stage.elected()
    stage.begin("crash", "1", for_s=3.0)
    stage.begin("power-loss", "1,2", for_s=1.0)
    stage.pass_time(1.5)
    assert stage.world.up() == [0, 2]
    assert stage.count("crashes") == 2
    stage.pass_time(1.6)
    assert stage.world.up() == [0, 1, 2]


def test_power_loss_takes_what_was_not_synced_even_from_a_process_that_is_dead() -> None:
    stage = Stage()
    stage.elected()
    disk = stage.cluster.disks[1]
    stage.begin("crash", "1", for_s=3.0)
    file = disk.open("note", create=True)
    file.write_at(0, b"written and not synced")
    stage.begin("power-loss", "1", for_s=1.0)
    assert disk.unsynced_changes() == 0
    assert (stage.count("power losses"), stage.count("torn writes")) == (1, 1)
    stage.pass_time(2)
    assert not stage.cluster.is_up(1)


def test_power_is_lost_in_the_middle_of_an_operation() -> None:
    stage = Stage()
    stage.write_from(0)
    stage.pass_time(1)
    stage.begin("power-loss-in-operation", "0", 5.0, for_s=2.0)
    assert stage.cluster.is_up(0)
    stage.wait_for(lambda: not stage.cluster.is_up(0), within_s=1)
    assert stage.count("power-loss-in-operation") == stage.count("crashes") == stage.count("power losses") == 1
    stage.wait_for(lambda: stage.cluster.is_up(0), within_s=2)
    stage.pass_time(2)
    assert stage.cluster.disks[0].ops_until_death is None
    assert not stage.violations


def test_power_that_was_not_lost_in_time_is_not_lost_later() -> None:
    stage = Stage()
    stage.elected()
    stage.begin("power-loss-in-operation", "0", 1e9, for_s=1.0)
    stage.pass_time(1.01)
    assert stage.cluster.disks[0].ops_until_death is None
    assert stage.count("power-loss-in-operation") == 0


def test_a_node_stops_in_order() -> None:
    stage = Stage()
    stage.write_from(0)
    stage.pass_time(2)
    follower = stage.follower()
    stage.begin("stop", str(follower), for_s=3.0)
    stage.wait_for(lambda: not stage.cluster.is_up(follower), within_s=2)
    # An orderly stop leaves nothing to a later loss of power.
    assert stage.cluster.disks[follower].unsynced_changes() == 0
    assert stage.count("crashes") == 0
    stage.wait_for(lambda: stage.cluster.is_up(follower), within_s=3)
    assert stage.count("restarts") == 1
    assert not stage.violations


def test_a_paused_leader_does_nothing_and_wakes_up_deposed() -> None:
    stage = Stage()
    stage.write_from(0)
    stage.pass_time(2)
    old = stage.elected()
    stage.begin("pause", "leader", for_s=3.0)
    machine = stage.cluster.machine(old)
    busy_until_s = machine.busy_until_s
    stage.pass_time(2.9)
    assert machine.busy_until_s == busy_until_s
    assert stage.cluster.nodes[old].status()["role"] == "leader"
    stage.pass_time(1)
    assert stage.cluster.nodes[old].status()["role"] == "follower"
    assert not stage.violations


def test_a_client_is_paused_until_the_last_of_two_pauses_ends() -> None:
    stage = Stage()
    stage.elected()
    stage.write_from(1)
    stage.pass_time(1)
    stage.begin("pause", "client-1", for_s=2.0)
    stage.begin("pause", "client-1", for_s=1.0)
    assert stage.writes_within(1.9) == 0
    stage.pass_time(0.2)
    assert stage.writes_within(1.0) > 5


def test_a_slow_disk_is_slow_for_a_while() -> None:
    stage = Stage()
    disk = stage.cluster.disks[2]
    stage.begin("slow-disk", "2", 0.2, for_s=1.0)
    stage.begin("slow-disk", "2", 0.01, for_s=2.0)
    assert disk.draw_sync_s() >= 0.05
    stage.pass_time(1.01)
    assert 0.0025 <= disk.draw_sync_s() <= 0.01
    stage.pass_time(1)
    assert disk.sync_s == SYNC_S


def test_a_full_disk_stops_writes_and_no_node() -> None:
    stage = Stage()
    stage.write_from(0, size_bytes=2000, pause_s=0.01)
    stage.pass_time(2)
    stage.begin("full-disk", "all", 0.0, for_s=8.0)
    stage.pass_time(5)
    assert stage.writes_within(2.0) == 0
    assert stage.world.up() == [0, 1, 2]
    stage.pass_time(3.5)
    assert stage.cluster.disks[0].capacity_bytes is None
    assert stage.writes_within(2.0) > 20
    assert not stage.violations


def test_a_node_with_a_failing_disk_ends_and_is_started_again() -> None:
    stage = Stage()
    stage.write_from(0)
    stage.pass_time(2)
    leader = stage.elected()
    stage.begin("failing-disk", str(leader), for_s=1.0)
    stage.wait_for(lambda: not stage.cluster.is_up(leader), within_s=1)
    stage.wait_for(lambda: leader in stage.cluster.nodes and leader not in stage.cluster.starting, within_s=5)
    stage.pass_time(3)
    assert stage.world.up() == [0, 1, 2]
    assert stage.count("restarts") >= 1
    assert not stage.violations


def test_a_node_that_fails_for_no_reason_is_a_violation() -> None:
    stage = Stage()
    follower = stage.follower()
    stage.cluster.nodes[follower]._fail(OSError("nothing is wrong with the disk"))
    stage.pass_time(0.1)
    assert [violation.check for violation in stage.violations] == ["node failed"]


def test_a_node_that_runs_does_not_end_for_want_of_room() -> None:
    stage = Stage()
    follower = stage.follower()
    stage.begin("full-disk", str(follower))
    stage.cluster.nodes[follower]._fail(OSError("no space left"))
    stage.pass_time(0.1)
    assert [violation.check for violation in stage.violations] == ["node failed"]


def test_a_failed_sync_explains_an_end_only_in_the_life_in_which_it_failed() -> None:
    stage = Stage()
    follower = stage.follower()
    stage.begin("failing-disk", str(follower), for_s=0.0)
    stage.begin("crash", str(follower), for_s=1.0)
    stage.pass_time(3)
    stage.cluster.nodes[follower]._fail(OSError("the disk is sound again"))
    stage.pass_time(0.1)
    assert [violation.check for violation in stage.violations] == ["node failed"]


def test_a_damaged_node_sets_its_folder_aside_and_is_filled_again() -> None:
    stage = Stage()
    stage.write_from(0)
    stage.pass_time(3)
    stage.begin("crash", "1", for_s=1.0)
    stage.world.damage(1, segment_path("log", 1), 8 * 70)
    assert not stage.world.operator.may_lose(0) and not stage.world.operator.may_lose(2)
    stage.pass_time(2)
    assert stage.count("folders set aside") == 1
    stage.wait_for(lambda: stage.world.operator.may_lose(0))
    assert stage.observer.coverage()["refills"] == 2
    stage.world.heal()
    stage.wait_for(lambda: not stage.world.operator.unsettled())
    assert stage.world.up() == [0, 1, 2]
    assert stage.writes_within(1.0) > 5
    assert not stage.violations


def test_damage_that_nobody_did_is_a_violation() -> None:
    stage = Stage()
    stage.write_from(0)
    stage.pass_time(3)
    stage.begin("crash", "1", for_s=1.0)
    stage.cluster.disks[1].flip_bit(segment_path("log", 1), 8 * 70)
    stage.pass_time(2)
    assert [violation.check for violation in stage.violations][:1] == ["node failed"]
    assert "crc" in stage.violations[0].text.lower() or "segment" in stage.violations[0].text


@pytest.mark.parametrize("fault", ["corruption", "wipe"])
def test_never_so_many_folders_are_lost_that_the_rest_were_no_quorum(fault: str) -> None:
    stage = Stage()
    stage.write_from(0)
    stage.pass_time(2)
    stage.begin(fault, "1", 8.0 if fault == "corruption" else 1.0, for_s=0.5)
    stage.begin(fault, "2", 8.0 if fault == "corruption" else 1.0, for_s=0.5)
    stage.begin(fault, "all", 8.0 if fault == "corruption" else 1.0, for_s=0.5)
    # The one that is lost already may be lost again.
    assert stage.count(fault) == 2 and set(stage.world.operator.damaged) <= {1}
    assert stage.cluster.is_up(0) and stage.cluster.is_up(2)
    stage.pass_time(5)
    assert stage.world.up() == [0, 1, 2]
    assert not stage.violations


def test_every_bit_that_may_be_damaged_in_a_log_is_noticed_or_means_nothing() -> None:
    """As `noticeable_bits` claims: what is read afterwards is the same, or an error."""
    stage = Stage()
    stage.write_from(0, size_bytes=500)
    stage.pass_time(6)
    stage.begin("power-loss", "1")
    disk = stage.cluster.disks[1]
    sound = read_log(disk, "log").groups
    noticed = 0
    spots = {path: bits for path, bits in noticeable_bits(disk).items() if path.startswith("log/")}
    assert spots
    for path, bits in spots.items():
        for bit in range(0, bits, max(1, bits // 40)):
            disk.flip_bit(path, bit)
            try:
                assert read_log(disk, "log").groups == sound
            except CorruptLog:
                noticed += 1
            disk.flip_bit(path, bit)
    assert noticed > 20


def test_clocks_run_at_rates_of_their_own_after_a_restart_too() -> None:
    stage = Stage()
    stage.elected()
    stage.begin("clock-skew", "all", 0.02, for_s=10.0)
    stage.begin("crash", "0", for_s=1.0)
    stage.pass_time(2)
    machines = [stage.cluster.machine(node) for node in range(3)]

    def rates() -> list[float]:
        before_s = [machine.local_s() for machine in machines]
        stage.pass_time(1.0)
        return [machine.local_s() - before for machine, before in zip(machines, before_s, strict=True)]

    skewed = rates()
    assert len(set(skewed)) == 3
    assert all(0.98 <= rate <= 1.02 and abs(rate - 1) > 1e-5 for rate in skewed)
    stage.pass_time(8)
    assert rates() == pytest.approx([1.0, 1.0, 1.0], abs=1e-6)


def test_the_wall_clock_jumps_and_the_monotonic_one_does_not() -> None:
    stage = Stage()
    machine = stage.cluster.machine(0)
    wall_ms, local_s = machine.wall_ms(), machine.local_s()
    stage.begin("clock-jump", "0", -60_000.0, for_s=1.0)
    assert machine.wall_ms() - wall_ms == -60_000
    assert machine.local_s() == pytest.approx(local_s)
    stage.pass_time(1.01)
    assert 1000 <= machine.wall_ms() - wall_ms < 1100


def test_nodes_take_snapshots_when_asked() -> None:
    stage = Stage()
    stage.write_from(0)
    stage.pass_time(2)
    stage.begin("snapshot", "all", for_s=0.0)
    stage.pass_time(0.5)
    assert stage.count("snapshot") == 3
    for node in range(3):
        assert stage.cluster.nodes[node].status()["groups"][0]["snapshot_position"] > 0


@pytest.mark.parametrize("nodes", [3, 5])
def test_a_coup_brings_down_one_leader_after_the_other_but_never_a_majority(nodes: int) -> None:
    stage = Stage(nodes)
    stage.elected()
    stage.write_from(0)
    before = stage.observer.coverage()["elections"]
    stage.begin("coup", amount=0.05, for_s=6.0)
    network = stage.simulation.network
    fewest = nodes
    for _ in range(600):
        stage.pass_time(0.01)
        up = stage.world.up()
        cuts = {
            node: sum(network.quality(host_of(node), host_of(other)).cuts for other in range(nodes) if other != node)
            for node in up
        }
        working = [node for node in up if cuts[node] < nodes - 1]
        fewest = min(fewest, len(working))
    assert fewest == nodes // 2 + 1
    assert stage.observer.coverage()["elections"] >= before + 5
    assert stage.count("coup") >= 5
    stage.pass_time(3)
    assert stage.world.up() == list(range(nodes))
    assert not any(quality.cuts for quality in network.qualities.values())
    assert stage.writes_within(2.0) > 20
    assert not stage.violations


def test_targets() -> None:
    stage = Stage(nodes=5)
    leader = stage.elected()

    def resolve(target: str) -> list[int]:
        return stage.world.resolve(Injection("crash", 1.0, 1.0, target))

    assert resolve("leader") == [leader]
    assert resolve("all") == [0, 1, 2, 3, 4]
    assert resolve("3,0") == [0, 3]
    assert resolve("client-3,leader") == [leader]
    assert resolve("follower") != [leader] and len(resolve("follower")) == 1
    assert leader in resolve("majority") and len(resolve("majority")) == 3
    injection = Injection("pause", 1.0, 1.0, "client-3,leader")
    assert stage.world.clients_of(injection) == [client_host(3)]
    stage.begin("crash", "all")
    assert resolve("leader") == resolve("leader")
    assert len(resolve("leader")) == 1


def test_every_fault_says_what_it_is() -> None:
    for name, fault in FAULTS.items():
        assert fault.name == name == name.lower()
        assert fault.about and "\n" not in fault.about
    assert host_of(0) != client_host(0)
