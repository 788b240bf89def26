"""`quorate up`: a whole cluster on this machine, supervised."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from quorate.cli.admin import NoAnswer, NodeStatus
from quorate.cli.cluster_folder import (
    ClusterMark,
    locked_folder,
    node_folder,
    note_formed,
    open_cluster,
    remove_cluster,
    write_node_config,
)
from quorate.cli.cluster_view import Agreement, ClusterView, admins_of, view_members
from quorate.cli.errors import EXIT_FAILURE
from quorate.cli.ports import BasePorts, check_ports
from quorate.cli.supervisor import NodeCommand, Supervisor
from quorate.cli.tables import render_table
from quorate.node.config import (
    MAX_MEMBERS,
    SERVICE_GROUPS,
    Address,
    NodeConfig,
    make_config,
    parse_services,
)
from quorate.node.protocols import PROTOCOL_NAMES, protocol_text, protocols_of

DEFAULT_NODES = 3
DEFAULT_ZOOKEEPER_PORT = 2181
DEFAULT_ETCD_PORT = 2379
PEER_PORT_DISTANCE = 1000
ADMIN_PORT_DISTANCE = 2000

LEADER_PATIENCE_S = 30.0
"""After this long without a leader, say where to look, and go on waiting."""

STRAGGLER_PATIENCE_S = 5.0
"""After this long a leader is enough; sooner, the table waits for every node to know it."""

POLL_FAST_S = 0.1
POLL_S = 0.5

KAZOO = """\
or in Python, with `pip install kazoo`:

  from kazoo.client import KazooClient
  client = KazooClient(hosts="{hosts}")
  client.start()
  with client.Lock("/printer", "me"):
      print("the lock is mine")

"""

EPILOG = """\b
Examples:
  quorate up                              three nodes, data in ./quorate-data
  quorate up --nodes 5 --data /srv/lab    five nodes, data elsewhere
  quorate up --zookeeper-port 12181       beside a ZooKeeper on 2181
  quorate up --services etcd              no ZooKeeper; decided for good when the data is made
  quorate up --fresh                      forget the data of earlier runs

Node I, counted from 0, listens on each port + I, on 127.0.0.1 only: with five nodes ZooKeeper has 2181
to 2185, etcd 2379 to 2383, peers 3181 to 3185, status and metrics 4181 to 4185. To spread a cluster over
machines, run `quorate node` on each; docs/deployment.md shows it. A cluster that runs grows by
`quorate member add`, with the new node started by hand.
"""


@click.command(epilog=EPILOG)
@click.option(
    "--nodes",
    type=click.IntRange(1, MAX_MEMBERS),
    metavar="N",
    help=f"How many nodes.  [default: {DEFAULT_NODES}, or as the data was made]",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("quorate-data"),
    show_default=True,
    metavar="DIR",
    help="Folder for settings, logs and data of all nodes. It survives between runs.",
)
@click.option(
    "--protocol",
    metavar="NAME",
    help=f"Consensus protocol: {', '.join(PROTOCOL_NAMES)}, one for each group, as in etcd=raft,zookeeper=zab; "
    "with paxos:4+2, 4 nodes elect and 2 decide. "
    f"[default: {protocol_text(protocols_of(None, SERVICE_GROUPS))}, or as the data was made]",
)
@click.option(
    "--services",
    callback=lambda context, option, value: None if value is None else _parse_services(value),
    metavar="NAMES",
    help=f"What it serves, separated by commas.  [default: {','.join(SERVICE_GROUPS)}, or as the data was made]",
)
@click.option(
    "--zookeeper-port",
    type=click.IntRange(1, 65535),
    default=DEFAULT_ZOOKEEPER_PORT,
    show_default=True,
    metavar="PORT",
    help="Port of node 0 for ZooKeeper clients.",
)
@click.option(
    "--etcd-port",
    type=click.IntRange(1, 65535),
    default=DEFAULT_ETCD_PORT,
    show_default=True,
    metavar="PORT",
    help="Port of node 0 for etcd clients.",
)
@click.option(
    "--peer-port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help=f"Port of node 0 for the other nodes.  [default: --zookeeper-port + {PEER_PORT_DISTANCE}]",
)
@click.option(
    "--admin-port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help=f"Port of node 0 for status and metrics.  [default: --zookeeper-port + {ADMIN_PORT_DISTANCE}]",
)
@click.option("--fresh", is_flag=True, help="Delete the data of earlier runs and begin anew.")
@click.option("--no-restart", is_flag=True, help="Leave a node that ended as it is.")
def up(
    nodes: int | None,
    data: Path,
    protocol: str | None,
    services: tuple[str, ...] | None,
    zookeeper_port: int,
    etcd_port: int,
    peer_port: int | None,
    admin_port: int | None,
    fresh: bool,
    no_restart: bool,
) -> None:
    """Run a durable cluster on this machine until Ctrl-C."""
    client_ports = {"zookeeper": zookeeper_port, "etcd": etcd_port}

    def ports_of(served: tuple[str, ...]) -> BasePorts:
        return BasePorts(
            {service: client_ports[service] for service in served},
            peer_port if peer_port is not None else zookeeper_port + PEER_PORT_DISTANCE,
            admin_port if admin_port is not None else zookeeper_port + ADMIN_PORT_DISTANCE,
        )

    with locked_folder(data):
        if fresh:
            # First, because nodes that still run on these ports would lose their data under their feet.
            check_ports(ports_of(services or tuple(SERVICE_GROUPS)), nodes or DEFAULT_NODES)
            remove_cluster(data)
        mark = open_cluster(data, nodes, protocol, services, default_nodes=DEFAULT_NODES)
        ports = ports_of(mark.services)
        check_ports(ports, mark.nodes)
        configs = [node_config(data, mark, ports, node) for node in range(mark.nodes)]
        commands = [_command(data, config) for config in configs]
        clean = asyncio.run(_run(data, mark, ports, configs, commands, restart=not no_restart))
    if not clean:
        sys.exit(EXIT_FAILURE)


def _parse_services(text: str) -> tuple[str, ...]:
    try:
        return parse_services(text.split(","))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def node_config(data: Path, mark: ClusterMark, ports: BasePorts, node: int) -> NodeConfig:
    """The settings of one node of the cluster."""
    return make_config(
        {
            "cluster": mark.cluster,
            "node": node,
            "data": str((node_folder(data, node) / "data").absolute()),
            "protocol": mark.protocol,
            "services": [*mark.services],
            "join": mark.formed,
            "members": {str(member): str(ports.addresses(member)["peer"]) for member in range(mark.nodes)},
            "listen": {name: str(address) for name, address in ports.addresses(node).items()},
        }
    )


def _command(data: Path, config: NodeConfig) -> NodeCommand:
    file = write_node_config(data, config)
    # -P: a module that lies in the current folder must not stand in for one of ours.
    arguments = (sys.executable, "-P", "-m", "quorate", "node", "--config", str(file.absolute()))
    return NodeCommand(config.node, arguments, file.with_name("node.log"))


def say(line: str) -> None:
    """Print a line; where nobody reads any more (`| head`, a closed terminal), go on in silence."""
    try:
        click.echo(line)
    except OSError:
        # The cluster is worth more than its report.  Later lines, and the flush at exit, go nowhere.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


async def _run(
    data: Path,
    mark: ClusterMark,
    ports: BasePorts,
    configs: Sequence[NodeConfig],
    commands: Sequence[NodeCommand],
    *,
    restart: bool,
) -> bool:
    """Start, introduce and supervise the nodes; True where they were asked to stop and all did."""
    supervisor = Supervisor(commands, restart, say)
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        supervisor.stop()
        say(f"\n{number.name}: stopping all nodes (once more to kill them) ...")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    nodes = "1 node" if mark.nodes == 1 else f"{mark.nodes} nodes"
    say(f"Starting {nodes} of cluster {mark.cluster} ({mark.protocol}), data in {data} ...")
    introduction = asyncio.create_task(_introduce(data, Formation(data, mark, ports), configs, supervisor))
    running = asyncio.create_task(supervisor.run())
    await asyncio.wait({introduction, running}, return_when=asyncio.FIRST_COMPLETED)
    if introduction.done():
        introduction.result()  # It never ends by itself: this raises what broke it.
    introduction.cancel()
    clean = await running
    if clean:
        say("All nodes are stopped.")
    else:
        say(f"The cluster is down. The nodes' own words are in {data}/node-*/node.log")
    return clean


class Formation:
    """Whether the nodes have formed their cluster; once they have, none of them may ever form another."""

    def __init__(self, data: Path, mark: ClusterMark, ports: BasePorts) -> None:
        self.mark = mark
        self._data = data
        self._ports = ports
        self._formed: set[int] = set()

    def heed(self, view: ClusterView) -> None:
        """Nodes that say the cluster's id have it on disk.  When all have said it, settings and mark say so."""
        if self.mark.formed:
            return
        self._formed |= {status.node for status in view.statuses() if status.cluster_id}
        if self._formed >= set(range(self.mark.nodes)):
            try:
                mark = note_formed(self._data, self.mark)
                for node in range(mark.nodes):
                    write_node_config(self._data, node_config(self._data, mark, self._ports, node))
            except OSError:
                # A full disk, say: the cluster is worth more than the note, and the next look tries again.
                return
            self.mark = mark


async def _introduce(data: Path, formation: Formation, configs: Sequence[NodeConfig], supervisor: Supervisor) -> None:
    """Wait for the first leader, print what there is, then report each later change of leader."""
    loop = asyncio.get_running_loop()
    mark = formation.mark
    admins: dict[int, Address | None] = {config.node: config.listen.admin for config in configs}
    started_s = loop.time()
    told_where_to_look = False
    view = await view_members(admins, mark.cluster)
    formation.heed(view)
    while not (loop.time() - started_s > STRAGGLER_PATIENCE_S and _ready(view)) and not _complete(view):
        if not told_where_to_look and loop.time() - started_s > LEADER_PATIENCE_S:
            say(f"No leader after {LEADER_PATIENCE_S:g} s, still waiting. Look into {data}/node-*/node.log")
            if mark.formed and any(status.state == "joining" for status in view.statuses()):
                say("Nodes without their data wait to be let in by the others; --fresh begins anew.")
            told_where_to_look = True
        await asyncio.sleep(POLL_FAST_S)
        view = await view_members(admins, mark.cluster)
        formation.heed(view)
    known = view.leaders()
    say(f"{_who_leads(known)} after {loop.time() - started_s:.1f} s.\n")
    say(introduction(data, configs, view, supervisor))
    while True:
        await asyncio.sleep(POLL_S)
        view = await view_members(admins, mark.cluster)
        formation.heed(view)
        heed_members(view, admins, supervisor)
        leaders = {service: view.leaders().get(service) for service in known}
        for line in news(known, leaders):
            say(line)
        known = leaders


def heed_members(view: ClusterView, admins: dict[int, Address | None], supervisor: Supervisor) -> None:
    """Nodes may have been added, by hand, which count in the majority, and removed, which end for good."""
    statuses = [status for status in view.statuses() if status.membership.version]
    if not statuses:
        return
    newest = max(statuses, key=lambda status: status.membership.version)
    try:
        known = admins_of(newest)
    except NoAnswer:
        return
    admins.update({node: admin for node, admin in known.items() if node not in admins or admins[node] is None})
    for process in supervisor.nodes:
        if process.command.node not in known:
            supervisor.retire(process.command.node)


def _ready(view: ClusterView) -> bool:
    """Every service can be used."""
    return view.is_led() and all(led is not None and led.ready for led in view.leaders().values())


def _complete(view: ClusterView) -> bool:
    """Ready, and every node knows by whom each service is led."""
    if not _ready(view) or len(view.statuses()) < len(view.nodes):
        return False
    known_by = {(status.node, group.service): group.leader for status in view.statuses() for group in status.groups}
    return all(
        led is not None and known_by.get((node.node, service)) == led.leader
        for service, led in view.leaders().items()
        for node in view.nodes
    )


def _who_leads(leaders: Mapping[str, Agreement | None]) -> str:
    """As the beginning of a sentence."""
    by_service = {service: led.leader for service, led in leaders.items() if led is not None}
    if len(set(by_service.values())) == 1:
        return f"Node {next(iter(by_service.values()))} leads"
    clauses = ", ".join(f"node {node} leads {service}" for service, node in by_service.items())
    return f"{clauses[0].upper()}{clauses[1:]},"


def news(before: Mapping[str, Agreement | None], now: Mapping[str, Agreement | None]) -> Iterator[str]:
    """What has changed of who leads, a line each."""
    for service, led in now.items():
        was, what = before[service], f" {service}" if len(now) > 1 else ""
        if led is None:
            if was is not None:
                yield f"no leader{what and f' of{what}'} is followed by a quorum of the voters"
        elif was is None or (was.leader, was.generation) != (led.leader, led.generation):
            yield f"node {led.leader} leads{what} now ({' '.join(led.term)})"


def introduction(data: Path, configs: Sequence[NodeConfig], view: ClusterView, supervisor: Supervisor) -> str:
    """The table of nodes and what to try next."""
    leaders = {service: led.leader for service, led in view.leaders().items() if led is not None}
    roles = {status.node: _role(status, leaders) for status in view.statuses()}
    rows = []
    for config in configs:
        process_id = supervisor.process_id(config.node)
        rows.append(
            [
                str(config.node),
                roles.get(config.node, "starting"),
                str(process_id) if process_id is not None else "-",
                *(str(address) for address in config.clients().values()),
                str(config.listen.admin),
                str(node_folder(data, config.node)),
            ]
        )
    table = render_table(["node", "role", "process", *configs[0].services, "admin", "data"], rows)
    leader_process = supervisor.process_id(leaders[configs[0].services[0]])
    return f"{table}\n\n{what_to_try(configs, leader_process, data)}"


def _role(status: NodeStatus, leaders: Mapping[str, int]) -> str:
    """A node may lead some services, and follow in others."""
    led = [service for service, leader in leaders.items() if leader == status.node]
    return f"leads {' and '.join(led)}" if 0 < len(led) < len(leaders) else status.role


def what_to_try(configs: Sequence[NodeConfig], leader_process: int | None, data: Path) -> str:
    """Commands and client programs that work as they stand."""
    status = f"{this_command()} status{_endpoint_option(configs[0].listen.admin)}"
    served = {service: [str(config.clients()[service]) for config in configs] for service in configs[0].services}
    commands, programs, witness = [status], [], "the key"
    if "etcd" in served:
        etcdctl = f"etcdctl --endpoints={','.join(served['etcd'])}"
        commands += [f"{etcdctl} put greeting hello", f"{etcdctl} get greeting"]
    if "zookeeper" in served:
        commands.append(f"zkCli.sh -server {served['zookeeper'][0]}        (or any other client of ZooKeeper)")
        programs.append(KAZOO.format(hosts=",".join(served["zookeeper"])))
        witness = "the lock"
    lines = "\n".join(f"  {command}" for command in commands)
    return f"""\
Try, in another terminal:

{lines}

{"".join(programs)}then kill the leader and see {witness} survive:

  kill -9 {leader_process}

Ctrl-C stops all nodes; the data stays in {data} (--fresh deletes it).
"""


def this_command() -> str:
    """How to call this program from the same shell again."""
    here = Path(sys.argv[0])
    if here.name != "quorate":
        return f"{sys.executable} -m quorate"
    on_path = shutil.which("quorate")
    if on_path is not None and os.path.samefile(on_path, here):
        return "quorate"
    return str(here)


def _endpoint_option(admin: Address) -> str:
    if admin.port == DEFAULT_ZOOKEEPER_PORT + ADMIN_PORT_DISTANCE:
        return ""
    return f" --endpoint {admin}"
