"""`quorate snapshot`: backups of a running cluster, and a new cluster out of one."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quorate.cli.admin import NoAnswer, fetch_backup
from quorate.cli.endpoints import endpoint_option, find_node
from quorate.cli.errors import CommandError
from quorate.cli.member import NODE, peer_address
from quorate.cli.progress import ProgressLine
from quorate.cli.tables import render_table, show_bytes
from quorate.node.config import Address

if TYPE_CHECKING:
    from quorate.node.recovery import NewNode, Recovery
    from quorate.storage.backup import BackupInfo, BackupReceiver

SILENCE_S = 30.0
"""A backup from which nothing comes for so long is given up."""

EPILOG = """\b
Examples:
  quorate snapshot save backup-2026-11-21.quorate
  quorate snapshot inspect backup-2026-11-21.quorate
  quorate snapshot restore backup-2026-11-21.quorate --data /var/lib/quorate --node 0 --peer 10.0.0.1:3181

A backup is one file with every group's snapshot, checksummed as a whole. It is taken while
the cluster serves, from one node, and holds what that node had applied by then.
"""


@click.group(epilog=EPILOG)
def snapshot() -> None:
    """Save a backup of a running cluster, look into one, make a new cluster of one."""


# --- save ------------------------------------------------------------------------------------


@snapshot.command(
    epilog="""\b
Examples:
  quorate snapshot save backup.quorate
  quorate snapshot save backup.quorate --endpoint 10.0.0.2:4181 --force

The file appears only when it is whole, verified and durable; a save that was cut short leaves nothing.
"""
)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE where it is there, once the new one is whole.")
@endpoint_option
def save(file: Path, force: bool, endpoints: list[Address]) -> None:
    """Save a backup of the whole cluster to FILE while it serves."""
    from quorate.storage.backup import BackupReceiver, CorruptBackup

    if file.exists() and not force:
        raise CommandError(f"{file} is there already. Choose another name, or replace it with --force.")
    target = file.with_name(f"{file.name}.new") if file.exists() else file
    try:
        if target != file:
            target.unlink(missing_ok=True)
        receiver = BackupReceiver(target)
        try:
            asyncio.run(_fetch(endpoints, receiver))
            info = receiver.finish()
        finally:
            receiver.abandon()
        if target != file:
            target.replace(file)
            _sync_folder(file.parent)
    except CorruptBackup as error:
        raise CommandError(
            f"what came is not a whole backup ({error.reason}); nothing was kept. "
            "The node's log says why it ended; try again, or ask another node with --endpoint."
        ) from error
    except OSError as error:
        raise CommandError(f"cannot write {error.filename or file}: {error.strerror}") from error
    click.echo(f"saved {file}: {show_bytes(info.size_bytes)}, all checksums are right\n\n{as_text(info)}")


async def _fetch(endpoints: list[Address], receiver: BackupReceiver) -> None:
    admin, status = await find_node(endpoints)
    size_bytes = 0
    progress = ProgressLine(sys.stderr)

    def take(data: bytes) -> None:
        nonlocal size_bytes
        size_bytes += len(data)
        receiver.write(data)
        progress.show(lambda: f"{show_bytes(size_bytes)} from node {status.node}")

    try:
        await fetch_backup(admin, SILENCE_S, take)
    except NoAnswer as error:
        raise CommandError(
            f"node {status.node} ({admin}) gave no whole backup: {error}; nothing was kept. "
            "Try again, or ask another node with --endpoint."
        ) from error
    finally:
        progress.clear()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- inspect ---------------------------------------------------------------------------------


@snapshot.command(
    epilog="""\b
Examples:
  quorate snapshot inspect backup.quorate
  quorate snapshot inspect backup.quorate --json && echo sound
"""
)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def inspect(file: Path, as_json: bool) -> None:
    """Verify every byte of a backup and say what it holds.  Exit code 1 where it is damaged."""
    info = verified(file)
    click.echo(
        json.dumps(as_data(info), indent=2) if as_json else f"{file}: all checksums are right\n\n{as_text(info)}"
    )


def verified(file: Path) -> BackupInfo:
    """Raises CommandError."""
    from quorate.storage.backup import CorruptBackup, inspect

    try:
        return inspect(file)
    except CorruptBackup as error:
        raise CommandError(f"{error}. It cannot be restored; use another backup.") from error
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}") from error


def as_data(info: BackupInfo) -> dict[str, object]:
    """The JSON of `--json`."""
    header = info.header
    return {
        "cluster": header.cluster,
        "cluster_id": header.cluster_id,
        "protocol": header.protocol,
        "version": header.quorate_version,
        "created_ms": header.created_ms,
        "size_bytes": info.size_bytes,
        "groups": [
            {
                "group": group.group,
                "service": group.service,
                "position": group.position,
                "generation": group.generation,
                "size_bytes": group.size_bytes,
            }
            for group in info.groups
        ],
    }


def as_text(info: BackupInfo) -> str:
    header = info.header
    created = datetime.fromtimestamp(header.created_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    rows = [
        [g.service, f"{g.position:,}", str(g.generation), show_bytes(g.size_bytes)]
        for g in sorted(info.groups, key=lambda g: (g.group == 0, g.group))
    ]
    right = frozenset({"position", "generation", "size"})
    table = render_table(["service", "position", "generation", "size"], rows, right=right)
    return (
        f"cluster {header.cluster} (id {header.cluster_id}, {header.protocol}), saved {created} "
        f"by Quorate {header.quorate_version}\n\n{table}"
    )


# --- restore ---------------------------------------------------------------------------------


@snapshot.command(
    epilog="""\b
Examples:
  quorate snapshot restore backup.quorate --data /var/lib/quorate --node 0 --peer 10.0.0.1:3181
  quorate snapshot restore backup.quorate --data lab --node 0 --peer 127.0.0.1:3181 --cluster rehearsal

The new cluster has an id of its own, so no node of the old one can ever join it, and one node.
Start that, then let it grow: `quorate member add`.
"""
)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The node's data folder, new or empty.",
)
@click.option("--node", "node_id", required=True, type=NODE, metavar="ID", help="The node's id.")
@click.option(
    "--peer", required=True, callback=peer_address, metavar="HOST:PORT", help="Where other nodes will reach it."
)
@click.option("--cluster", metavar="NAME", help="The new cluster's name.  [default: as in the backup]")
def restore(file: Path, data: Path, node_id: int, peer: Address, cluster: str | None) -> None:
    """Make a new cluster of one node out of a backup."""
    click.echo(restored(file, data, node_id, peer, cluster))


def restored(file: Path, data: Path, node: int, peer: Address, cluster: str | None) -> str:
    """Restore a backup; returns what to do next.  Raises CommandError."""
    from quorate.node.recovery import CannotRecover, restore_backup
    from quorate.storage.backup import CorruptBackup, FolderNotEmpty
    from quorate.storage.identity import DamagedIdentity, IdentityMismatch
    from quorate.storage.real_disk import DataFolderInUse, RealDisk

    verified(file)  # before DIR is made
    try:
        with closing(RealDisk(data)) as disk:
            recovery = asyncio.run(restore_backup(disk, file, new_node(node, peer, cluster)))
    except DataFolderInUse as error:
        raise CommandError(f"a running node holds {data}. Choose a new or empty folder.") from error
    except FolderNotEmpty as error:
        raise CommandError(f"{data}: {error}. Choose a new or empty folder.") from error
    except (CannotRecover, CorruptBackup, DamagedIdentity, IdentityMismatch) as error:
        raise CommandError(f"{data}: {error}") from error
    except OSError as error:
        raise CommandError(f"cannot restore to {error.filename or data}: {error.strerror or error}") from error
    return f"restored {file} to {data}\n\n{what_next(recovery, data)}"


def new_node(node: int | None, peer: Address | None, cluster: str | None = None) -> NewNode:
    from quorate.node.recovery import NewNode

    return NewNode(secrets.token_hex(16), secrets.token_hex(16), node, str(peer) if peer else None, cluster)


def what_next(recovery: Recovery, data: Path) -> str:
    """How to start the node of the new cluster."""
    return f"""\
cluster {recovery.cluster} has a new id, {recovery.cluster_id}, and one member: node {recovery.node}.
Start it with these settings in a file, as  quorate node --config FILE

  cluster = "{recovery.cluster}"
  node = {recovery.node}
  data = "{data.absolute()}"
  protocol = "{recovery.protocol}"
  services = {json.dumps(recovery.services)}
  join = true                   # if this folder is ever lost, wait to be let in: never form a new, empty cluster
  [members]
  {recovery.node} = "{recovery.peer}"

Then let the cluster grow again, each further node with an empty folder and join = true:

  quorate member add ID HOST:PORT"""
