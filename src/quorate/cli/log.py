"""`quorate log inspect`: what a stopped node has on disk."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quorate.cli.cluster_view import CLUSTER_GROUP
from quorate.cli.errors import EXIT_FAILURE, CommandError
from quorate.cli.tables import show_bytes
from quorate.node.config import SERVICE_GROUPS
from quorate.node.protocols import CLUSTER_SERVICE, protocols_in, without_sizes

if TYPE_CHECKING:
    from quorate.storage.log_inspection import InspectedRecord
    from quorate.storage.real_disk import RealDisk

EPILOG = """\b
Examples:
  quorate log inspect quorate-data/node-0
  quorate log inspect /var/lib/quorate --verify-only && echo sound

\b
Kinds of records:
  state      the protocol's own state: for Raft term and vote, for ZAB its epochs, for Paxos the promise
  entry      a batch of commands at a position of the group's log
  truncate   entries from a position on do not count any more: another leader's do
  compacted  a snapshot covers everything up to a position
  oldest     segments before a number are no longer needed
  closed     the node was stopped in an orderly way

The generation is Raft's term, ZAB's epoch or the ballot of Paxos, as round.node, in which an entry was
proposed. Positions may come out of order in a log of Paxos; of several entries of one position the last one
counts. A generation of - says that the last entry before a snapshot was void.

Groups: 0 is the cluster's own, 1 ZooKeeper's, 2 etcd's.

A torn tail is the end of a write that a crash cut off before it was acknowledged: a node
cuts it by itself when it starts. Damage is anything else; the exit code is 1 then.
"""


@click.group(epilog="\b\nExamples:\n  quorate log inspect quorate-data/node-0")
def log() -> None:
    """Look into a node's log on disk."""


@log.command(epilog=EPILOG)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--verify-only", is_flag=True, help="Print no records, only what is wrong and a summary.")
def inspect(folder: Path, verify_only: bool) -> None:
    """Print the records of a stopped node's log and verify their checksums.

    DIR is the node's data folder, its folder under `quorate up`, or the log's own folder.
    """
    from quorate.storage.log_errors import UnknownLogFormat
    from quorate.storage.real_disk import DataFolderInUse, RealDisk

    data, log_name = find_log(folder)
    try:
        disk = RealDisk(data)
        try:
            sound = _print_log(disk, data, log_name, verify_only)
        finally:
            disk.close()
    except DataFolderInUse as error:
        raise CommandError(f"a running node holds {data}. Stop it first: its log changes while it is read.") from error
    except UnknownLogFormat as error:
        raise CommandError(str(error)) from error
    except BrokenPipeError:
        # Whoever read the output has seen enough; click ends quietly.
        raise
    except OSError as error:
        raise CommandError(f"cannot read {error.filename or data}: {error.strerror}") from error
    if not sound:
        sys.exit(EXIT_FAILURE)


def find_log(folder: Path) -> tuple[Path, str]:
    """(data folder, name of the log's folder in it).  Raises CommandError."""
    for data in (folder, folder / "data"):
        if (data / "log").is_dir():
            return data, "log"
    if any(folder.glob("*.segment")):
        absolute = folder.absolute()
        return absolute.parent, absolute.name
    if any(folder.glob("node-*")):
        raise CommandError(f"{folder} is a whole cluster's folder. Name one node's, as in {folder}/node-0.")
    raise CommandError(f"{folder} holds no log. Name a node's data folder, or a folder with *.segment files.")


def _print_log(disk: RealDisk, data: Path, log_name: str, verify_only: bool) -> bool:
    """Print everything; True where nothing is damaged."""
    from quorate.storage.log_inspection import Damage, InspectedRecord, InspectedSegment, inspect

    numbers = _numbers(disk)
    records = segments = damages = 0
    for item in inspect(disk, log_name):
        if isinstance(item, InspectedRecord):
            records += 1
            if not verify_only:
                click.echo(_record_line(item, numbers))
        elif isinstance(item, InspectedSegment):
            segments += 1
            if not verify_only:
                spare = "" if item.begun else ", not begun"
                click.echo(f"{data / item.file}: {show_bytes(item.size_bytes)}{spare}")
                if item.begun:
                    click.echo(
                        f"{'offset':>12} {'group':>6} {'kind':<10}{'position':>12} {'generation':>11} {'bytes':>9}"
                    )
        elif isinstance(item, Damage):
            damages += 1
            click.echo(f"DAMAGED: {data / item.file} at offset {item.offset}: {item.reason}", err=True)
        else:
            click.echo(f"torn tail: {data / item.file} from offset {item.offset} on, {item.bytes_cut} bytes")
    verdict = f"{damages} damaged places" if damages else "all checksums are right"
    click.echo(f"{records} records in {segments} segments: {verdict}")
    return not damages


def _numbers(disk: RealDisk) -> dict[int, Callable[[int], str]]:
    """Group -> how its protocol writes a generation; none where the folder does not tell the protocol."""
    from quorate.consensus.protocols import PROTOCOLS
    from quorate.storage.identity import DamagedIdentity, Identity, IdentityMismatch

    try:
        identity = Identity.load(disk)
    except (DamagedIdentity, IdentityMismatch):
        identity = None
    if identity is None:
        return {}
    names = {CLUSTER_GROUP: CLUSTER_SERVICE, **{group: service for service, group in SERVICE_GROUPS.items()}}
    runs_on = protocols_in(without_sizes(identity.protocol), names.values())
    return {
        group: PROTOCOLS[runs_on[service]].describe_generation for group, service in names.items() if service in runs_on
    }


def _record_line(record: InspectedRecord, numbers: Mapping[int, Callable[[int], str]]) -> str:
    generation = ""
    if record.generation:
        describe = numbers.get(record.group, "generation {}".format)
        generation = describe(record.generation).rpartition(" ")[2]
    elif record.kind == "compacted":
        generation = "-"
    return (
        f"{record.offset:>12} {record.group:>6} {record.kind:<10}{record.position or '':>12} "
        f"{generation:>11} {record.length or '':>9}"
    )
