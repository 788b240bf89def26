"""`quorate recover`: a new cluster out of a survivor, when the quorum of the old one is gone for good."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quorate.cli.cluster_view import CLUSTER_GROUP
from quorate.cli.errors import CommandError, WrongConfiguration
from quorate.cli.member import NODE, peer_address
from quorate.cli.snapshot import as_text, new_node, restored, verified, what_next
from quorate.cli.tables import render_table
from quorate.node.config import SERVICE_GROUPS, Address, ConfigError, load_config

if TYPE_CHECKING:
    from quorate.node.recovery import Found
    from quorate.storage.real_disk import RealDisk

EPILOG = """\b
Examples:
  quorate recover --data /var/lib/quorate
  quorate recover --config /etc/quorate/node.toml
  quorate recover --data /var/lib/quorate/damaged-1       what a node had set aside, where it can be read
  quorate recover --from-backup backup.quorate --data /var/lib/quorate --node 0 --peer 10.0.0.1:3181

\b
Only where so many voters are lost for good that the rest cannot decide any more:
  1. Stop every node that is left. While a majority lives, `quorate member replace` loses nothing.
  2. Of the folders that are left, take the one that is furthest: run this on each without --yes, answer no,
     and compare the terms (ballots, epochs) of "written in" first, then positions. Where entries before the
     last are missing (Paxos), a folder reaches no further than to the first of them: rather take one without.
  3. Recover that one, start its node, empty the others' folders and add them: `quorate member add`.
"""


@click.command(epilog=EPILOG)
@click.option("--data", type=click.Path(path_type=Path), metavar="DIR", help="The survivor's data folder.")
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The node's settings: folder, id, address.",
)
@click.option("--node", "node_id", type=NODE, metavar="ID", help="The node's id.  [default: as in the folder]")
@click.option(
    "--peer",
    callback=lambda context, option, value: value and peer_address(context, option, value),
    metavar="HOST:PORT",
    help="Where other nodes will reach it.  [default: as before]",
)
@click.option(
    "--from-backup",
    "backup",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Take the data from a backup; DIR must be empty then.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def recover(
    data: Path | None, file: Path | None, node_id: int | None, peer: Address | None, backup: Path | None, yes: bool
) -> None:
    """Make a new cluster of one node out of what is left of one that lost its quorum.

    Writes that only the lost members had are gone, and no former member can ever join again.
    """
    if file is not None:
        try:
            config = load_config(file, {"node": node_id} if node_id is not None else {})
        except ConfigError as error:
            raise WrongConfiguration(str(error)) from error
        data, node_id, peer = data or config.data, config.node, peer or config.members[config.node]
    if data is None:
        raise click.UsageError("name the survivor's folder with --data DIR, or its settings with --config FILE")
    if backup is not None:
        _from_backup(backup, data, node_id, peer, yes)
    else:
        _from_folder(data, node_id, peer, yes)


def _from_backup(backup: Path, data: Path, node: int | None, peer: Address | None, yes: bool) -> None:
    if node is None or peer is None:
        raise click.UsageError("a backup is nobody's: say who its node is to be with --node ID --peer HOST:PORT")
    info = verified(backup)
    click.echo(f"{as_text(info)}\n\n{consequence('that were made after this backup')}\n")
    if not yes:
        click.confirm(f"Make a new cluster out of {backup}?", abort=True)
    click.echo(restored(backup, data, node, peer, None))


def _from_folder(data: Path, node: int | None, peer: Address | None, yes: bool) -> None:
    from quorate.node.recovery import examine
    from quorate.node.recovery import recover as recover_folder
    from quorate.storage.rebuild import finish_interrupted

    folder = data_folder(data)
    with _disk(folder) as disk:
        if (kept := finish_interrupted(disk)) is not None:
            click.echo(f"finished a recovery that was interrupted; what was there before is in {folder / kept}")
            return
        found = examine(disk)
        click.echo(describe(found, folder))
        click.echo(f"\n{consequence('that only the lost members had')}\n")
        if not yes:
            click.confirm(f"Make a new cluster out of {folder}?", abort=True)
        recovery = recover_folder(disk, found, new_node(node, peer), "a new cluster was made by quorate recover")
    click.echo(
        f"recovered {folder}; what was there before is in {folder / recovery.kept}\n\n{what_next(recovery, folder)}"
    )


def data_folder(folder: Path) -> Path:
    """The data folder that is meant: the folder itself, or the one in a node's folder of `quorate up`.

    Raises CommandError.
    """
    for candidate in (folder, folder / "data"):
        if any((candidate / name).exists() for name in ("identity.json", "unfinished.json")):
            return candidate
    aside = sorted(folder.glob("damaged-*"))
    if aside:
        raise CommandError(
            f"{folder} holds no state: its node set it aside as damaged. "
            f"See whether that can be read: quorate recover --data {aside[-1]}"
        )
    raise CommandError(f"{folder} is not the data folder of a node. Name one with identity.json and log/ in it.")


@contextmanager
def _disk(folder: Path) -> Iterator[RealDisk]:
    """The folder, held against its node; and told apart, what is wrong with it.  Raises CommandError."""
    from quorate.consensus.records import InvalidState
    from quorate.node.recovery import CannotRecover
    from quorate.storage.identity import DamagedIdentity, IdentityMismatch
    from quorate.storage.log_errors import CorruptLog, LogSyncFailed, UnknownLogFormat
    from quorate.storage.real_disk import DataFolderInUse, RealDisk
    from quorate.storage.rebuild import MissingSnapshot
    from quorate.storage.snapshots import CorruptSnapshot

    try:
        with ExitStack() as held:
            if folder.name.startswith("damaged-"):
                # The node that set this aside must not run either: it is about to be somebody else.
                held.enter_context(closing(RealDisk(folder.absolute().parent)))
            yield held.enter_context(closing(RealDisk(folder)))
    except DataFolderInUse as error:
        raise CommandError(
            f"a running node holds {folder}; nothing was changed. Stop it first: "
            "and if it still finds a majority, nothing needs to be recovered."
        ) from error
    except (CannotRecover, CorruptLog, CorruptSnapshot, DamagedIdentity, InvalidState, MissingSnapshot) as error:
        raise CommandError(
            f"{folder} cannot be recovered: {error}. Nothing was changed. Take the folder of another survivor, "
            "or a backup: quorate recover --from-backup FILE --data EMPTY-DIR --node ID --peer HOST:PORT"
        ) from error
    except (IdentityMismatch, UnknownLogFormat) as error:
        raise CommandError(f"{folder}: {error}. Nothing was changed.") from error
    except (LogSyncFailed, OSError) as error:
        raise CommandError(f"{folder} cannot be used: {error}") from error


def describe(found: Found, folder: Path) -> str:
    """What was found, for a person who must decide."""
    names = {CLUSTER_GROUP: "cluster", **{group: service for service, group in SERVICE_GROUPS.items()}}
    rows = [
        [
            names.get(group, f"group {group}"),
            f"{about.last_position:,}",
            about.protocol.describe_generation(about.generation),
            about.protocol.describe_generation(about.state_generation),
            f"{about.snapshot_position:,}",
            ", ".join(str(voter) for voter in about.configuration.voters) or "unknown",
        ]
        for group, about in sorted(found.groups.items(), key=lambda item: (item[0] == 0, item[0]))
    ]
    heads = ["service", "last position", "written in", "last heard of", "snapshot", "voters"]
    right = frozenset({"last position", "snapshot"})
    lines = [
        f"{folder}: node {found.node} of cluster {found.cluster} (id {found.cluster_id}), "
        f"members at version {found.version()}",
        "",
        render_table(heads, rows, right=right),
        "",
    ]
    others = ", ".join(str(node) for node in found.others())
    lines.append(f"Voters beside it: {others or 'none'}.")
    if found.torn:
        lines.append("The log ends in a write that a crash cut off; it was never acknowledged, and is left out.")
    lines += [f"Mind: {doubt}." for doubt in found.doubts()]
    return "\n".join(lines)


def consequence(which: str) -> str:
    return f"""\
This makes a new cluster, with a new id, of one node:
- writes {which} are gone, acknowledged or not;
- writes whose outcome was unknown may turn out to have been made;
- no former member can ever join it again with its data, nor can this node go back to the old cluster.
Where a majority of the voters still lives, do not do this: `quorate member replace` loses nothing."""
