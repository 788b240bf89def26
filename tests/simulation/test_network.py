"""The network between simulated machines: delay, loss, cuts, resets, and what the other end sees of a death."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from quorate.simulation.network import DELAY_S, RETRANSMISSION_S
from quorate.simulation.scheduler import Simulation
from quorate.simulation.sockets import PROBE_S, SOCKET_BUFFER_BYTES
from tests.simulation.loops import Recorder

SERVER, CLIENT, OTHER = "10.0.0.1", "10.0.1.1", "10.0.1.2"
PORT = 2181


@dataclass(slots=True)
class Ends:
    """A connection of CLIENT's to SERVER."""

    simulation: Simulation
    client: Recorder
    server: Recorder

    def write_to_server(self, data: bytes) -> None:
        self.client.transport.write(data)

    def pass_time(self, duration_s: float) -> None:
        self.simulation.pass_until(self.simulation.now_s + duration_s)


def listen(simulation: Simulation, accept: Callable[[], asyncio.BaseProtocol] = Recorder, port: int = PORT) -> None:
    async def work() -> None:
        await asyncio.get_running_loop().create_server(accept, SERVER, port)

    simulation.run(simulation.machines[SERVER], work())


def connect(simulation: Simulation, host: str = CLIENT, port: int = PORT) -> Recorder:
    async def work() -> Recorder:
        _, protocol = await asyncio.get_running_loop().create_connection(Recorder, SERVER, port)
        return protocol

    return simulation.run(simulation.machines[host], work())


def connected(simulation: Simulation | None = None) -> Ends:
    simulation = simulation or Simulation(1)
    accepted = list[Recorder]()

    def accept() -> Recorder:
        accepted.append(Recorder())
        return accepted[-1]

    simulation.boot(SERVER)
    simulation.boot(CLIENT)
    listen(simulation, accept)
    client = connect(simulation)
    simulation.pass_until(simulation.now_s + 0.01)
    return Ends(simulation, client, accepted[0])


# --- bytes -----------------------------------------------------------------------------------


def test_a_chunk_takes_its_delay_and_overtakes_none() -> None:
    ends = connected()
    ends.simulation.network.quality(CLIENT, SERVER).delay_factor = 1000.0
    for number in range(10):
        ends.write_to_server(b"%d" % number)
    ends.pass_time(1000 * DELAY_S[0] - 0.001)
    assert ends.server.received == b""
    ends.pass_time(1000 * (DELAY_S[1] - DELAY_S[0]) + 0.002)
    assert ends.server.received == b"0123456789"


def test_delay_is_that_of_one_direction() -> None:
    ends = connected()
    ends.simulation.network.quality(CLIENT, SERVER).delay_factor = 1000.0
    ends.server.transport.write(b"fast")
    ends.write_to_server(b"slow")
    ends.pass_time(0.01)
    assert (ends.client.received, ends.server.received) == (b"fast", b"")


def test_a_lost_packet_is_sent_again_and_holds_up_what_follows() -> None:
    ends = connected()
    network = ends.simulation.network
    network.quality(CLIENT, SERVER).loss = 0.99999
    ends.write_to_server(b"lost ")
    network.quality(CLIENT, SERVER).loss = 0.0
    ends.write_to_server(b"not lost")
    ends.pass_time(RETRANSMISSION_S)
    assert ends.server.received == b"", "the second waits for the first"
    ends.pass_time(64 * RETRANSMISSION_S)
    assert ends.server.received == b"lost not lost"


def test_delays_grow_with_the_number_of_losses() -> None:
    network = Simulation(1).network
    network.quality(CLIENT, SERVER).loss = 0.5
    delays_s = [network.draw_delay_s(CLIENT, SERVER) for _ in range(1000)]
    kinds = [round((delay_s - DELAY_S[0]) / RETRANSMISSION_S) for delay_s in delays_s]
    assert set(kinds) == {0, 1, 3, 7, 15, 31, 63}
    assert 400 < kinds.count(0) < 600 and 150 < kinds.count(1) < 350
    assert max(network.draw_delay_s(SERVER, CLIENT) for _ in range(100)) <= DELAY_S[1]


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_read_may_find_a_part_of_what_arrived_and_together_they_are_all_of_it(share: float) -> None:
    reads = list[bytes]()

    class Reads(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            reads.append(data)

    simulation = Simulation(1)
    simulation.network.split_share = share
    simulation.boot(SERVER)
    simulation.boot(CLIENT)
    listen(simulation, Reads)
    client = connect(simulation)
    random = Random(1)
    sent = [random.randbytes(random.randrange(1, 100)) for _ in range(200)]
    for data in sent:
        client.transport.write(data)
        simulation.pass_until(simulation.now_s + 0.01)
    assert b"".join(reads) == b"".join(sent)
    assert (len(reads) > 250) if share else (reads == sent)


def test_writes_that_wait_unread_are_read_as_one() -> None:
    ends = connected()
    reads = list[int]()
    received = ends.server.data_received

    def count(data: bytes) -> None:
        reads.append(len(data))
        received(data)

    ends.server.data_received = count  # type: ignore[method-assign]
    ends.simulation.machines[SERVER].pause()
    for _ in range(3):
        ends.write_to_server(b"abc")
        ends.pass_time(0.01)
    ends.simulation.machines[SERVER].resume()
    ends.pass_time(0.01)
    assert reads == [9]


def test_a_paused_machine_still_receives_and_then_pushes_back() -> None:
    ends = connected()
    ends.simulation.machines[SERVER].pause()
    for _ in range(10):
        ends.write_to_server(bytes(20_000))
    ends.pass_time(1)
    assert ends.client.told == ["made", "pause"]
    assert ends.client.transport.get_write_buffer_size() == 200_000 - SOCKET_BUFFER_BYTES
    ends.simulation.machines[SERVER].resume()
    ends.pass_time(1)
    assert ends.client.told == ["made", "pause", "resume"]
    assert len(ends.server.received) == 200_000


# --- connecting ------------------------------------------------------------------------------


def test_nobody_listens_or_address_is_taken_or_foreign() -> None:
    simulation = Simulation()
    server, client = simulation.boot(SERVER), simulation.boot(CLIENT)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        await loop.create_server(Recorder, "0.0.0.0", PORT)
        with pytest.raises(OSError, match="in use"):
            await loop.create_server(Recorder, SERVER, PORT)
        with pytest.raises(OSError, match="not an address"):
            await loop.create_server(Recorder, CLIENT, PORT)

    async def attempt() -> None:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(CLIENT, PORT)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(SERVER, PORT + 1)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("localhost", PORT)

    simulation.run(server, serve())
    simulation.run(client, attempt())


def test_a_connect_waits_for_a_host_that_is_off_and_gives_up_in_the_end() -> None:
    simulation = Simulation()
    client = simulation.boot(CLIENT)
    outcomes = list[object]()

    async def attempt() -> None:
        try:
            outcomes.append(await asyncio.get_running_loop().create_connection(Recorder, SERVER, PORT))
        except OSError as error:
            outcomes.append(type(error))

    simulation.start(client, attempt())
    simulation.pass_until(20)
    assert outcomes == []
    simulation.boot(SERVER)
    listen(simulation)
    simulation.pass_until(25)
    assert len(outcomes) == 1 and isinstance(outcomes[0], tuple)
    simulation.kill(SERVER)
    simulation.start(client, attempt())
    simulation.pass_until(26)
    assert outcomes[1] is ConnectionRefusedError, "the process is gone, its kernel is not"
    simulation.go_dark(SERVER)
    simulation.start(client, attempt())
    simulation.pass_until(100)
    assert outcomes[2] is TimeoutError


@pytest.mark.parametrize(("source", "target"), [(CLIENT, SERVER), (SERVER, CLIENT)])
def test_a_connect_waits_while_either_direction_is_cut(source: str, target: str) -> None:
    simulation = Simulation()
    simulation.boot(SERVER)
    client = simulation.boot(CLIENT)
    listen(simulation)
    simulation.network.cut(source, target)
    connecting = simulation.start(client, asyncio.open_connection(SERVER, PORT))
    simulation.pass_until(10)
    assert not connecting.done()
    simulation.network.mend(source, target)
    simulation.pass_until(12)
    assert connecting.done() and connecting.exception() is None


# --- cuts ------------------------------------------------------------------------------------


def test_a_cut_holds_back_one_direction_until_it_is_mended() -> None:
    ends = connected()
    network = ends.simulation.network
    network.cut(CLIENT, SERVER)
    assert not network.is_open(CLIENT, SERVER) and network.is_open(SERVER, CLIENT)
    ends.write_to_server(b"held, ")
    ends.write_to_server(b"in order")
    ends.server.transport.write(b"not held")
    ends.pass_time(60)
    assert (ends.client.received, ends.server.received) == (b"not held", b"")
    network.mend(CLIENT, SERVER)
    ends.write_to_server(b", and later")
    ends.pass_time(0.01)
    assert ends.server.received == b"held, in order, and later"
    assert ends.client.told[-1] == b"not held", "the connection lives on"


def test_what_was_on_its_way_when_the_cut_came_is_held_too() -> None:
    ends = connected()
    ends.write_to_server(b"on its way")
    ends.simulation.network.cut(CLIENT, SERVER)
    ends.pass_time(10)
    assert ends.server.received == b""
    ends.simulation.network.mend(CLIENT, SERVER)
    ends.pass_time(0.01)
    assert ends.server.received == b"on its way"


def test_cuts_that_overlap_end_with_the_last() -> None:
    ends = connected()
    network = ends.simulation.network
    network.cut(CLIENT, SERVER)
    network.cut(CLIENT, SERVER)
    ends.write_to_server(b"held")
    network.mend(CLIENT, SERVER)
    ends.pass_time(1)
    assert ends.server.received == b""
    network.mend(CLIENT, SERVER)
    ends.pass_time(1)
    assert ends.server.received == b"held"


def test_cuts_concern_nobody_else() -> None:
    ends = connected()
    ends.simulation.boot(OTHER)
    ends.simulation.network.cut(CLIENT, SERVER)
    ends.simulation.network.cut(SERVER, CLIENT)
    other = connect(ends.simulation, OTHER)
    assert other.told == ["made"]


def test_an_end_of_stream_is_held_back_like_bytes() -> None:
    ends = connected()
    ends.simulation.network.cut(CLIENT, SERVER)
    ends.write_to_server(b"last words")
    ends.client.transport.close()
    ends.pass_time(60)
    assert ends.server.told == ["made"]
    ends.simulation.network.mend(CLIENT, SERVER)
    ends.pass_time(0.1)
    assert ends.server.told == ["made", b"last words", "eof", ("lost", None)]


# --- resets ----------------------------------------------------------------------------------


def test_a_reset_ends_both_ends_of_every_connection_between_two_hosts() -> None:
    ends = connected()
    second = connect(ends.simulation)
    ends.simulation.boot(OTHER)
    other = connect(ends.simulation, OTHER)
    network = ends.simulation.network
    ends.write_to_server(b"under way")
    assert network.reset(CLIENT, SERVER) == 2
    ends.pass_time(0.1)
    assert ends.client.told == ["made", ("lost", ConnectionResetError)]
    assert ends.server.told == ["made", ("lost", ConnectionResetError)], "what was under way is lost"
    assert second.told == ["made", ("lost", ConnectionResetError)]
    assert other.told == ["made"]
    assert network.connections_reset == 2
    assert network.reset(CLIENT, SERVER) == network.reset("10.0.9.9", SERVER) == 0


def test_bytes_that_reach_a_closed_end_are_answered_by_a_reset() -> None:
    ends = connected()
    ends.server.stays_half_open = True
    ends.client.transport.close()
    ends.pass_time(1)
    assert ends.server.told == ["made", "eof"]
    ends.server.transport.write(b"too late")
    ends.pass_time(1)
    assert ends.server.told[-1] == ("lost", ConnectionResetError)
    assert ends.client.told == ["made", ("lost", None)]


def test_bytes_that_are_under_way_to_an_end_that_closes_are_answered_by_a_reset() -> None:
    ends = connected()
    ends.client.stays_half_open = True
    ends.write_to_server(b"crossing")
    ends.server.transport.write(b"good-bye")
    ends.server.transport.close()
    ends.pass_time(1)
    assert ends.server.told == ["made", ("lost", None)]
    assert ends.client.told == ["made", b"good-bye", "eof", ("lost", ConnectionResetError)]


def test_aborting_resets_the_other_end_and_loses_what_was_under_way() -> None:
    ends = connected()
    ends.write_to_server(b"under way")
    ends.client.transport.abort()
    ends.pass_time(1)
    assert ends.client.told == ["made", ("lost", None)]
    assert ends.server.told == ["made", ("lost", ConnectionResetError)]


# --- what the other end sees of a death ------------------------------------------------------


def test_a_killed_process_says_its_last_words_and_resets() -> None:
    ends = connected()
    ghost: Any = ends.server.transport
    ghost.write(b"last words")
    ends.simulation.kill(SERVER)
    ghost.write(b" of a ghost")
    ghost.abort()
    ends.pass_time(1)
    assert ends.client.told == ["made", b"last words", ("lost", ConnectionResetError)]
    assert ends.server.told == ["made"]
    ends.client.transport.write(b"ignored")
    machine = ends.simulation.boot(SERVER)
    assert machine.transports == {}


def test_a_killed_process_takes_along_what_its_kernel_did_not_hold() -> None:
    ends = connected()
    ends.client.transport.pause_reading()
    for number in range(10):
        ends.server.transport.write(bytes([number]) * 20_000)
    ends.simulation.kill(SERVER)
    ends.client.transport.resume_reading()
    ends.pass_time(1)
    assert len(ends.client.received) == 60_000
    assert ends.client.told[-1] == ("lost", ConnectionResetError)


def test_its_servers_vanish_with_a_machine() -> None:
    ends = connected()
    ends.simulation.kill(SERVER)
    ends.simulation.boot(SERVER)
    with pytest.raises(ConnectionRefusedError):
        connect(ends.simulation)
    listen(ends.simulation)
    assert connect(ends.simulation).told == ["made"]


def test_a_writer_that_does_not_read_learns_of_the_reset_too() -> None:
    ends = connected()
    ends.client.transport.pause_reading()
    ends.simulation.kill(SERVER)
    ends.pass_time(1)
    assert ends.client.told == ["made"]
    ends.write_to_server(b"anyone?")
    ends.pass_time(1)
    assert ends.client.told == ["made", ("lost", ConnectionResetError)]


def test_a_loss_of_power_is_silent_until_the_host_is_back_and_is_sent_something() -> None:
    ends = connected()
    ends.server.transport.write(b"last words")
    ends.simulation.kill(SERVER, power_loss=True)
    ends.pass_time(600)
    assert ends.client.told == ["made", b"last words"]
    ends.simulation.boot(SERVER)
    ends.pass_time(600)
    assert ends.client.told == ["made", b"last words"], "nothing was sent to it"
    ends.write_to_server(b"anyone?")
    ends.pass_time(PROBE_S + 0.01)
    assert ends.client.told == ["made", b"last words", ("lost", ConnectionResetError)]


def test_what_is_sent_to_a_host_without_power_is_answered_when_it_is_back() -> None:
    ends = connected()
    ends.simulation.kill(SERVER, power_loss=True)
    ends.write_to_server(b"anyone?")
    ends.pass_time(600)
    assert ends.client.told == ["made"]
    ends.simulation.boot(SERVER)
    ends.pass_time(PROBE_S + 0.01)
    assert ends.client.told == ["made", ("lost", ConnectionResetError)]


def test_a_loss_of_power_after_the_process_was_killed_changes_nothing() -> None:
    ends = connected()
    ends.simulation.kill(SERVER)
    ends.pass_time(1)
    ends.simulation.boot(SERVER)
    ends.simulation.kill(SERVER, power_loss=True)
    ends.pass_time(1)
    assert ends.client.told == ["made", ("lost", ConnectionResetError)]


def test_a_reset_by_a_dead_process_waits_for_the_way_to_be_open() -> None:
    ends = connected()
    ends.simulation.network.cut(SERVER, CLIENT)
    ends.simulation.kill(SERVER)
    ends.pass_time(60)
    assert ends.client.told == ["made"]
    ends.simulation.network.mend(SERVER, CLIENT)
    ends.pass_time(1)
    assert ends.client.told == ["made", ("lost", ConnectionResetError)]


def test_both_ends_may_lose_their_power() -> None:
    ends = connected()
    for host in (SERVER, CLIENT):
        ends.simulation.kill(host, power_loss=True)
    for host in (CLIENT, SERVER):
        ends.simulation.boot(host)
    listen(ends.simulation)
    ends.pass_time(5)
    again = connect(ends.simulation)
    ends.pass_time(5)
    assert again.told == ["made"]
    assert ends.client.told == ends.server.told == ["made"]
