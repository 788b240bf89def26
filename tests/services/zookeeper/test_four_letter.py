"""Four-letter words over a socket."""

from __future__ import annotations

import asyncio

import pytest

from tests.services.zookeeper.harness import Cluster, on_simulated_loop
from tests.services.zookeeper.raw import Raw


async def ask(endpoint: str, word: bytes) -> str:
    raw = await Raw.dial(endpoint)
    raw.send_bytes(word)
    async with asyncio.timeout(5):
        return (await raw.reader.read(-1)).decode()


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_ruok(ending: bytes) -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            assert await ask(cluster.endpoints[0], b"ruok" + ending) == "imok"

    on_simulated_loop(work)


def test_srvr_and_stat_have_the_lines_that_parsers_look_for() -> None:
    async def work() -> None:
        async with Cluster(3) as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            raw.send_create(1, b"/a")
            await raw.reply()
            srvr = (await ask(cluster.endpoints[0], b"srvr")).splitlines()
            assert srvr[0].startswith("Zookeeper version: 3.8.0-quorate-")
            names = [line.split(": ")[0] for line in srvr[1:]]
            assert names == [
                "Latency min/avg/max",
                "Received",
                "Sent",
                "Connections",
                "Outstanding",
                "Zxid",
                "Mode",
                "Node count",
            ]
            assert "Mode: leader" in srvr
            assert "Zxid: 0x2" in srvr
            assert "Node count: 5" in srvr
            assert "Mode: follower" in await ask(cluster.endpoints[1], b"srvr")
            stat = await ask(cluster.endpoints[0], b"stat")
            assert "\nClients:\n /127.0.0.1:" in stat
            assert "(queued=0,recved=1,sent=1)" in stat

    on_simulated_loop(work)


def test_a_single_node_is_standalone_and_one_without_a_leader_does_not_serve() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            assert "Mode: standalone" in await ask(cluster.endpoints[0], b"srvr")
            assert await ask(cluster.endpoints[0], b"isro") == "rw"
            cluster.lead(None)
            assert "not currently serving" in await ask(cluster.endpoints[0], b"srvr")
            assert await ask(cluster.endpoints[0], b"isro") == "null"
            assert await ask(cluster.endpoints[0], b"ruok") == "imok"

    on_simulated_loop(work)


def test_mntr_is_tabbed_pairs() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            lines = (await ask(cluster.endpoints[0], b"mntr")).splitlines()
            values = dict(line.split("\t") for line in lines)
            assert values["zk_server_state"] == "standalone"
            assert values["zk_znode_count"] == "4"
            assert values["zk_num_alive_connections"] == "1"
            assert float(values["zk_avg_latency"]) >= 0

    on_simulated_loop(work)


def test_conf_names_the_admin_endpoint_and_the_limits() -> None:
    async def work() -> None:
        async with Cluster(max_connections=77) as cluster:
            values = dict(line.split("=") for line in (await ask(cluster.endpoints[0], b"conf")).splitlines())
            assert values["adminEndpoint"] == "127.0.0.1:9"
            assert values["serverId"] == "1"
            assert values["maxClientCnxns"] == "77"

    on_simulated_loop(work)
