"""`quorate log inspect`: what a stopped node has on disk."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quorate.cli.errors import EXIT_FAILURE, CommandError
from quorate.cli.tables import show_bytes

if TYPE_CHECKING:
    from quorate.storage.log_inspection import InspectedRecord
    from quorate.storage.real_disk import RealDisk

EPILOG = """\b
Examples:
  quorate log inspect quorate-data/node-0
  quorate log inspect /var/lib/quorate --verify-only && echo sound

\b
Kinds of records:
  state      the protocol's own state: for Raft, term and vote
  entry      a batch of commands at a position of the group's log
  truncate   entries from a position on are void: another leader's hold
  compacted  a snapshot covers everything up to a position
  oldest     segments before a number are no longer needed
  closed     the node was stopped in an orderly way

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

    records = segments = damages = 0
    for item in inspect(disk, log_name):
        if isinstance(item, InspectedRecord):
            records += 1
            if not verify_only:
                click.echo(_record_line(item))
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


def _record_line(record: InspectedRecord) -> str:
    return (
        f"{record.offset:>12} {record.group:>6} {record.kind:<10}{record.position or '':>12} "
        f"{record.generation or '':>11} {record.length or '':>9}"
    )
