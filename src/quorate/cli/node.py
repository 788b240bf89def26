"""`quorate node`: run one node of a cluster in the foreground."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

import click

from quorate.cli.errors import WrongConfiguration
from quorate.node.config import ConfigError, SettingValue, load_config
from quorate.node.protocols import EXAMPLE, PROTOCOL_NAMES

STOP_GRACE_S = 10.0
"""How long a node whose supervisor is gone may take to stop before it is killed."""

EPILOG = """\b
A minimal FILE, here for node 0 of three machines:
  cluster = "production"
  node = 0
  data = "/var/lib/quorate"
  [members]
  0 = "10.0.0.1:3181"
  1 = "10.0.0.2:3181"
  2 = "10.0.0.3:3181"
  [listen]
  zookeeper = "0.0.0.0:2181"
  etcd = "0.0.0.0:2379"

\b
Examples:
  quorate node --config node.toml
  quorate node --config node.toml --node 2 --data /srv/quorate
  quorate node --config node.toml --protocol paxos
  quorate node --config node.toml --set timing.election_timeout_ms=1000

A new cluster is formed once all nodes of [members] have met. A node that is added to one that
exists says so in FILE with  join = true  and lists in [members] itself and those that are there;
`quorate member add` lets it in.

\b
Exit codes:
  0   stopped by SIGTERM or SIGINT, or removed from the cluster
  1   failed; starting it again may help
  74  the data on disk is damaged, and this is the only voter: `quorate recover --help`
      (any other node puts damaged data aside and is refilled by the others)
  78  the configuration is wrong; starting it again will not help

docs/deployment.md has the whole set-up of three machines.
"""


@click.command(epilog=EPILOG)
@click.option(
    "--config",
    "file",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The node's settings, in TOML.",
)
@click.option("--node", "node_id", type=int, metavar="ID", help="Which of the members this node is.")
@click.option("--data", type=click.Path(path_type=Path), metavar="DIR", help="Folder for the log and snapshots.")
@click.option(
    "--protocol",
    metavar="NAME",
    help=f"Consensus protocol: {', '.join(PROTOCOL_NAMES)}, or one for each group, as in {EXAMPLE}; the same on every "
    "node, and for good. [default: as the data was made]",
)
@click.option("--listen-zookeeper", metavar="HOST:PORT", help="Where ZooKeeper clients connect.")
@click.option("--listen-etcd", metavar="HOST:PORT", help="Where etcd clients connect.")
@click.option("--listen-peer", metavar="HOST:PORT", help="Where the other nodes connect.")
@click.option("--listen-admin", metavar="HOST:PORT", help="Where status, health and metrics are served.")
@click.option(
    "--set", "settings", metavar="NAME=VALUE", multiple=True, help="Any other setting, by its dotted name; repeatable."
)
@click.option("--stop-with-fd", type=int, hidden=True, help="Stop when the other end of this pipe is closed.")
def node(
    file: Path,
    node_id: int | None,
    data: Path | None,
    protocol: str | None,
    listen_zookeeper: str | None,
    listen_etcd: str | None,
    listen_peer: str | None,
    listen_admin: str | None,
    settings: tuple[str, ...],
    stop_with_fd: int | None,
) -> None:
    """Run one node until SIGTERM or SIGINT.  Flags win over the file."""
    flags: dict[str, SettingValue | None] = {
        "node": node_id,
        "data": str(data.absolute()) if data is not None else None,
        "protocol": protocol,
        "listen.zookeeper": listen_zookeeper,
        "listen.etcd": listen_etcd,
        "listen.peer": listen_peer,
        "listen.admin": listen_admin,
    }
    overrides = _parse_settings(settings) | {name: value for name, value in flags.items() if value is not None}
    try:
        config = load_config(file, overrides)
    except ConfigError as error:
        raise WrongConfiguration(str(error)) from error
    if stop_with_fd is not None:
        threading.Thread(target=_stop_with, args=(stop_with_fd,), name="supervisor-watch", daemon=True).start()

    from quorate.node.process import run_node

    sys.exit(run_node(config))


def _parse_settings(settings: tuple[str, ...]) -> dict[str, SettingValue]:
    parsed: dict[str, SettingValue] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise click.BadParameter(
                f"{setting!r} must be NAME=VALUE, as in timing.election_timeout_ms=1000", param_hint="--set"
            )
        parsed[name] = int(value) if value.isascii() and value.isdigit() else value
    return parsed


def _stop_with(pipe: int) -> None:
    """Stop this process, as SIGTERM does, once the writing end of `pipe` is closed.

    The supervisor holds that end and never writes.  However it dies, the kernel closes
    the end, so no node outlives it; a signal on the parent's death (PR_SET_PDEATHSIG)
    would bind nodes to the thread that started them and to Linux.
    """
    while os.read(pipe, 1):
        pass
    logging.getLogger(__name__).warning("the process that supervised this node is gone; stopping")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)
