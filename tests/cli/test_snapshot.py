"""`quorate snapshot`: backups that come whole, cut off, damaged or not at all."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from quorate.cli.main import main
from quorate.storage.backup import inspect
from quorate.storage.identity import Identity
from quorate.storage.real_disk import RealDisk
from tests.cli.fake_nodes import http, listener, status_of
from tests.node.survivors import CLUSTER_ID, backup, leave


def snapshot(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["snapshot", *map(str, arguments)])


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    with closing(RealDisk(tmp_path / "served")) as disk:
        return backup(disk)


@contextmanager
def serving(answer: bytes) -> Iterator[str]:
    """A node that answers `GET /backup` with these bytes; yields its address."""
    admins: list[str] = []

    def respond(request: bytes) -> bytes:
        if request.startswith(b"GET /backup "):
            return answer
        return http(json.dumps(status_of(0, admins)).encode())

    with listener(respond) as port:
        admins.append(f"127.0.0.1:{port}")
        yield admins[0]


def streamed(content: bytes) -> bytes:
    """As a node sends it: nobody knows the length beforehand, so the end of the connection is the end."""
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + content


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "served")


# --- save ------------------------------------------------------------------------------------


def test_save(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "lab.quorate"
    with serving(streamed(content)) as admin:
        result = snapshot("save", file, "--endpoint", admin)
    assert result.exit_code == 0, result.output
    assert file.read_bytes() == content
    assert names(tmp_path) == ["lab.quorate"]
    assert f"saved {file}: " in result.output
    assert f"cluster lab (id {CLUSTER_ID}, raft), saved 2023-11-14 22:13:20 UTC by Quorate 0.1.0" in result.output


def test_save_in_chunks(tmp_path: Path, content: bytes) -> None:
    pieces = [content[at : at + 100] for at in range(0, len(content), 100)]
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    with serving(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked) as admin:
        result = snapshot("save", tmp_path / "lab.quorate", "--endpoint", admin)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "lab.quorate").read_bytes() == content


def test_nothing_is_overwritten_without_force(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "lab.quorate"
    file.write_bytes(b"the only backup of last year")
    with serving(streamed(content)) as admin:
        refused = snapshot("save", file, "--endpoint", admin)
        assert file.read_bytes() == b"the only backup of last year"
        forced = snapshot("save", file, "--force", "--endpoint", admin)
    assert refused.exit_code == 1
    assert "is there already" in refused.output
    assert forced.exit_code == 0, forced.output
    assert file.read_bytes() == content
    assert names(tmp_path) == ["lab.quorate"]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("wrong", ["cut", "flipped", "cut chunks", "refused", "nothing"])
def test_a_save_that_fails_leaves_nothing(tmp_path: Path, content: bytes, wrong: str, force: bool) -> None:
    file = tmp_path / "lab.quorate"
    if force:
        file.write_bytes(b"old")
    answers = {
        "cut": streamed(content[:-1]),
        "flipped": streamed(content[:300] + bytes([content[300] ^ 1]) + content[301:]),
        "cut chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n" + content[:90],
        "refused": http(b"another backup is under way", "503 Service Unavailable"),
        "nothing": b"",
    }
    with serving(answers[wrong]) as admin:
        result = snapshot("save", file, "--endpoint", admin, *(["--force"] if force else []))
    assert result.exit_code == 1
    assert "nothing was kept" in result.output
    assert names(tmp_path) == (["lab.quorate"] if force else [])
    if force:
        assert file.read_bytes() == b"old"
    if wrong == "refused":
        assert "another backup is under way" in result.output


def test_a_folder_that_is_not_there(tmp_path: Path, content: bytes) -> None:
    with serving(streamed(content)) as admin:
        result = snapshot("save", tmp_path / "nowhere" / "lab.quorate", "--endpoint", admin)
    assert result.exit_code == 1
    assert "Error: cannot write " in result.output


def test_ctrl_c_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    """A node sends half of a backup and then nothing more; the person gives up."""

    async def run() -> int:
        half_sent = asyncio.Event()
        admins: list[str] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = await reader.readuntil(b"\r\n\r\n")
            if request.startswith(b"GET /status "):
                writer.write(http(json.dumps(status_of(0, admins)).encode()))
                writer.close()
                return
            writer.write(streamed(content[: len(content) // 2]))
            half_sent.set()
            await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        admins.append(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        arguments = ("snapshot", "save", str(tmp_path / "lab.quorate"), "--endpoint", admins[0])
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "quorate", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        async with asyncio.timeout(30):
            await half_sent.wait()
            process.send_signal(signal.SIGINT)
            _, errors = await process.communicate()
        server.close()
        assert b"Traceback" not in errors
        assert process.returncode is not None
        return process.returncode

    assert asyncio.run(run()) == 1
    assert names(tmp_path) == []


# --- inspect ---------------------------------------------------------------------------------


def test_inspect(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "lab.quorate"
    file.write_bytes(content)
    result = snapshot("inspect", file)
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"{file}: all checksums are right\n")
    rows = [line.split() for line in result.output.splitlines()[-2:]]
    assert [row[:3] for row in rows] == [["zookeeper", "400", "6"], ["cluster", "30", "5"]]
    data = json.loads(snapshot("inspect", file, "--json").output)
    assert (data["cluster"], data["cluster_id"], data["size_bytes"]) == ("lab", CLUSTER_ID, len(content))
    assert [group["position"] for group in data["groups"]] == [400, 30]


def test_inspect_of_a_damaged_backup(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "lab.quorate"
    for damaged in (content[:-3], content[:200] + b"?" + content[201:], b"", b"something else entirely"):
        file.write_bytes(damaged)
        result = snapshot("inspect", file)
        assert result.exit_code == 1
        assert f"Error: {file} at offset " in result.output
        assert "It cannot be restored" in result.output
    missing = snapshot("inspect", tmp_path / "none")
    assert missing.exit_code == 1
    assert "No such file" in missing.output


# --- restore ---------------------------------------------------------------------------------


def restore(file: Path, data: Path, *more: str) -> Result:
    return snapshot("restore", file, "--data", data, "--node", "7", "--peer", "10.0.0.7:3181", *more)


def test_restore(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "lab.quorate"
    file.write_bytes(content)
    result = restore(file, tmp_path / "data")
    assert result.exit_code == 0, result.output
    with closing(RealDisk(tmp_path / "data")) as disk:
        identity = Identity.load(disk)
    assert identity is not None
    assert (identity.cluster, identity.node, identity.recovered_from) == ("lab", 7, CLUSTER_ID)
    assert identity.cluster_id != CLUSTER_ID
    assert identity.cluster_id in result.output
    assert '  7 = "10.0.0.7:3181"\n' in result.output
    assert "quorate member add ID HOST:PORT" in result.output
    assert file.read_bytes() == content
    again = restore(file, tmp_path / "other", "--cluster", "rehearsal")
    assert "cluster rehearsal has a new id, " in again.output
    assert identity.cluster_id not in again.output


def test_restore_of_a_damaged_backup_makes_nothing(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "lab.quorate"
    file.write_bytes(content[:200] + b"?" + content[201:])
    result = restore(file, tmp_path / "data")
    assert result.exit_code == 1
    assert "Error: " in result.output and "at offset" in result.output
    assert not (tmp_path / "data").exists()


def test_restore_into_a_folder_that_is_not_empty(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "lab.quorate"
    file.write_bytes(content)
    with closing(RealDisk(tmp_path / "data")) as disk:
        leave(disk)
        before = sorted((tmp_path / "data").rglob("*"))
        held = restore(file, tmp_path / "data")
    result = restore(file, tmp_path / "data")
    assert (held.exit_code, result.exit_code) == (1, 1)
    assert "a running node holds" in held.output
    assert "Choose a new or empty folder" in result.output
    assert sorted((tmp_path / "data").rglob("*")) == before
    assert inspect(file).header.cluster == "lab"
