"""The folder of a cluster that `quorate up` runs on one machine.

    DIR/cluster.toml         what the data was made with, and whether its nodes have formed their cluster
    DIR/up.lock              held by the running `quorate up`
    DIR/node-I/node.toml     settings of node I, written anew at each start, and once the cluster has formed
    DIR/node-I/node.log      what node I wrote to standard error
    DIR/node-I/data/         the node's own folder: log and snapshots

`cluster.toml` is the mark by which a folder is known as ours.  Beginning anew deletes only
from a folder that carries the mark and holds nothing else; it first sets `removing` in the
mark, so that a removal that was cut short is finished by the next start, and no cluster
starts with half of its data gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from quorate.cli.errors import CommandError
from quorate.node.config import (
    MAX_MEMBERS,
    SERVICE_GROUPS,
    NodeConfig,
    parse_services,
    render_config,
)
from quorate.node.protocols import check_quorums, protocol_text, protocols_of

FORMAT = 3
FORMAT_WITHOUT_SERVICES = 2
"""Of a time when ZooKeeper was all that there was to be served."""
MARK_NAME = "cluster.toml"
LOCK_NAME = "up.lock"
NODE_FOLDER_NAMES = frozenset({"node.toml", "node.toml.new", "node.log", "data"})


@dataclass(frozen=True, slots=True)
class ClusterMark:
    """What a cluster's data was made with: name, number of nodes, protocol, services."""

    cluster: str
    nodes: int
    protocol: str
    """Which one each group runs on (`protocols.protocol_text`)."""
    services: tuple[str, ...]
    removing: bool = False
    formed: bool = False
    """All nodes were seen as part of one cluster: from then on, whoever has no data waits to be let in."""


@contextlib.contextmanager
def locked_folder(path: Path) -> Iterator[None]:
    """Create the folder if need be and hold it against a second `quorate up`.  Raises CommandError."""
    if path.exists() and not path.is_dir():
        raise CommandError(f"{path} is not a folder. Choose another place for the data with --data.")
    if path.is_dir() and not (path / MARK_NAME).exists() and _foreign(path):
        raise CommandError(
            f"{path} holds other files ({_some(_foreign(path))}) and no cluster. "
            "Choose an empty or new folder with --data."
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise CommandError(
            f"cannot use {path}: {error.strerror}. Choose another place for the data with --data."
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(lock, 20).decode("ascii", "replace").strip() or "unknown"
            raise CommandError(
                f"another `quorate up` (process {owner}) runs the cluster in {path}. "
                "Stop it first, or choose another folder with --data and other ports."
            ) from None
        os.truncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def open_cluster(
    path: Path,
    nodes: int | None = None,
    protocol: str | None = None,
    services: tuple[str, ...] | None = None,
    *,
    default_nodes: int,
) -> ClusterMark:
    """The cluster in a locked folder, made now if there is none.

    None for `nodes`, `protocol` or `services` means: as the data was made, or the default
    for a new cluster.  `protocol` is what `protocols.protocols_of` takes.  Raises CommandError
    where the data was made with others.
    """
    mark = _read_mark(path)
    if mark is not None and mark.removing:
        _remove_nodes(path)
        mark = None
    if mark is None:
        served = services or tuple(SERVICE_GROUPS)
        count = nodes or default_nodes
        mark = ClusterMark(f"local-{secrets.token_hex(6)}", count, _protocol_text(protocol, served, count), served)
        _write_mark(path, mark)
        return mark
    if nodes is not None and nodes != mark.nodes:
        raise CommandError(
            f"the cluster in {path} was made with {mark.nodes} nodes, not {nodes}. "
            f"Run it with --nodes {mark.nodes}, and add further nodes while it runs (`quorate member add --help`); "
            "or choose another folder with --data, or begin anew with --fresh, which deletes its data."
        )
    if services is not None and services != mark.services:
        made_with = ",".join(mark.services)
        raise CommandError(
            f"the cluster in {path} was made to serve {made_with}, not {','.join(services)}: that is decided for "
            f"good when a cluster is formed. Run it with --services {made_with}, or choose another folder with "
            "--data, or begin anew with --fresh, which deletes its data."
        )
    if protocol is not None and (wanted := _protocol_text(protocol, mark.services, mark.nodes)) != mark.protocol:
        raise CommandError(
            f"the cluster in {path} was made with the protocol {mark.protocol}, not {wanted}. "
            f"Run it with --protocol {mark.protocol}, or choose another folder with --data, "
            "or begin anew with --fresh, which deletes its data."
        )
    return mark


def _protocol_text(protocol: str | None, services: tuple[str, ...], nodes: int) -> str:
    try:
        protocols = protocols_of(protocol, services)
        check_quorums(protocols, nodes)
        return protocol_text(protocols)
    except ValueError as error:
        raise CommandError(f"--protocol {protocol}: {error}") from error


def note_formed(path: Path, mark: ClusterMark) -> ClusterMark:
    """All nodes have their cluster's id on disk."""
    mark = replace(mark, formed=True)
    _write_mark(path, mark)
    return mark


def remove_cluster(path: Path) -> None:
    """Delete the cluster in a locked folder, if there is one.  Raises CommandError, having deleted nothing,
    where the folder holds anything that no cluster made."""
    mark = _read_mark(path)
    if mark is None:
        return
    foreign = _foreign(path)
    if foreign:
        raise CommandError(
            f"--fresh would delete {path}, but it holds files that are not Quorate's: {_some(foreign)}. "
            "Move them away, or choose another folder with --data."
        )
    _write_mark(path, replace(mark, removing=True))
    _remove_nodes(path)
    (path / MARK_NAME).unlink()


def node_folder(path: Path, node: int) -> Path:
    return path / f"node-{node}"


def write_node_config(path: Path, config: NodeConfig) -> Path:
    """Write the settings of one node; returns the file."""
    folder = node_folder(path, config.node)
    folder.mkdir(exist_ok=True)
    file = folder / "node.toml"
    # In one step: the node may be starting just now.
    new = folder / "node.toml.new"
    new.write_text(f"# Written anew by each `quorate up`: changes are lost.\n{render_config(config)}")
    return new.replace(file)


def _foreign(path: Path) -> list[str]:
    """What lies in the folder, or in its nodes' folders, and is not ours.  A link is never ours."""
    foreign: list[str] = []
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        if re.fullmatch(r"node-[0-9]", entry.name) and entry.is_dir(follow_symlinks=False):
            foreign += [f"{entry.name}/{name}" for name in sorted(os.listdir(entry)) if name not in NODE_FOLDER_NAMES]
        elif entry.name not in (MARK_NAME, f"{MARK_NAME}.new", LOCK_NAME) or entry.is_symlink():
            foreign.append(entry.name)
    return foreign


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _remove_nodes(path: Path) -> None:
    try:
        for node in range(MAX_MEMBERS):
            if node_folder(path, node).is_dir():
                shutil.rmtree(node_folder(path, node))
    except OSError as error:
        raise CommandError(f"cannot delete {error.filename}: {error.strerror}. Run again once it can be.") from error


def _read_mark(path: Path) -> ClusterMark | None:
    file = path / MARK_NAME
    try:
        tree = tomllib.loads(file.read_text())
    except FileNotFoundError:
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} is damaged: {error}. Choose another folder with --data.") from error
    match tree:
        case {"format": int(version)} if version not in (FORMAT_WITHOUT_SERVICES, FORMAT):
            raise CommandError(
                f"{file} has format {version}; this version of Quorate knows formats up to {FORMAT} only. "
                "Choose another folder with --data."
            )
        case {
            "format": int(),
            "cluster": str(cluster),
            "nodes": int(nodes),
            "protocol": str(protocol),
            "removing": bool(removing),
            "formed": bool(formed),
        } if 1 <= nodes <= MAX_MEMBERS:
            try:
                services = parse_services(
                    ["zookeeper"] if tree["format"] == FORMAT_WITHOUT_SERVICES else tree.get("services")
                )
            except ValueError as error:
                raise CommandError(
                    f"{file} cannot be used: services {error}. Choose another folder with --data."
                ) from error
            return ClusterMark(cluster, nodes, protocol, services, removing, formed)
        case _:
            raise CommandError(f"{file} is not the mark of a Quorate cluster. Choose another folder with --data.")


def _write_mark(path: Path, mark: ClusterMark) -> None:
    new = path / f"{MARK_NAME}.new"
    with new.open("w") as file:
        file.write(
            "# Written by `quorate up`: what the data in this folder was made with.  Do not change.\n"
            f"format = {FORMAT}\n"
            f'cluster = "{mark.cluster}"\n'
            f"nodes = {mark.nodes}\n"
            f'protocol = "{mark.protocol}"\n'
            f"services = {json.dumps(mark.services)}\n"
            f"removing = {str(mark.removing).lower()}\n"
            f"formed = {str(mark.formed).lower()}\n"
        )
        file.flush()
        os.fsync(file.fileno())
    new.replace(path / MARK_NAME)
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
