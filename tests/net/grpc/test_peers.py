"""The server as other implementations see it: grpc-go (etcdctl), @grpc/grpc-js, curl, and nghttp2's own tool.

What is not installed is skipped, and says so; scripts/install-peers.sh installs all but grpc-js, which npm brings.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from quorate.net.grpc.calls import Call, Method, ServerOptions, Unary
from quorate.net.grpc.framing import encode_message
from quorate.net.grpc.status import Code
from tests.net.grpc.echo import LIMIT_S, EchoService, ServerThread

GRPC_JS = "@grpc/grpc-js@1"
NPM_LIMIT_S = 60.0


@pytest.fixture
def server() -> Iterator[ServerThread]:
    with ServerThread(ServerOptions(drain_s=1.0)) as running:
        yield running


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"NOT TRIED WITH {name.upper()}: run scripts/install-peers.sh to run this test")
    return path


def run(*command: str | Path, folder: Path | None = None, limit_s: float = LIMIT_S) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ETCDCTL_API": "3"}
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=limit_s, cwd=folder, env=environment
    )


# --- curl --------------------------------------------------------------------------------------


def curl(server: ServerThread, path: str, folder: Path, message: bytes | None, *options: str) -> tuple[str, bytes]:
    """Headers and trailers as curl shows them, and the body."""
    body = folder / "body"
    body.write_bytes(b"")
    command = [tool("curl"), "-sS", "--http2-prior-knowledge", "-D", "-", "-o", str(body), *options]
    if message is not None:
        (folder / "question").write_bytes(message)
        command += ["--data-binary", f"@{folder / 'question'}"]
    done = run(*command, f"http://{server.target}{path}")
    assert done.returncode == 0, done.stderr
    return done.stdout, body.read_bytes()


OF_GRPC = ("-H", "content-type: application/grpc", "-H", "te: trailers")
BROTLI = ("-H", "grpc-encoding: br")


@pytest.mark.parametrize("size", [0, 5, 70_000, 1_000_000])
def test_curl_posts_a_message_and_gets_it_back(server: ServerThread, tmp_path: Path, size: int) -> None:
    question = encode_message(bytes(size))
    headers, body = curl(server, "/test.Echo/Echo", tmp_path, question, *OF_GRPC)
    assert headers.startswith("HTTP/2 200")
    assert "content-type: application/grpc" in headers
    assert "grpc-status: 0" in headers
    assert body == question


@pytest.mark.parametrize(
    ("path", "message", "options", "status", "words"),
    [
        ("/nothing.Here/Call", b"\0\0\0\0\0", OF_GRPC, "200", "grpc-status: 12"),
        ("/test.Echo/Echo", b"\0\0\0\0\0", ("-H", "content-type: application/json"), "415", "content-type"),
        ("/test.Echo/Echo", None, (), "405", 'unexpected method "GET"'),
        ("/test.Echo/Echo", b"\0\0\0\0\5abc", OF_GRPC, "200", "unexpected EOF"),
        ("/test.Echo/Echo", b"\7\0\0\0\0", OF_GRPC, "200", "received unexpected payload format 7"),
        ("/test.Echo/Echo", b"\0\0\0\0\0" * 2, OF_GRPC, "200", "cardinality violation"),
        ("/test.Echo/Echo", b"", OF_GRPC, "200", "grpc-message: EOF"),
        ("/test.Echo/Echo", b"\0\xff\xff\xff\xff", OF_GRPC, "200", "larger than max (4294967295 vs. 2097152)"),
        ("/test.Echo/Echo", b"\0\0\0\0\0", OF_GRPC + BROTLI, "200", "accept-encoding: identity,gzip"),
    ],
)  # fmt: skip
def test_curl_is_told_what_is_wrong(
    server: ServerThread,
    tmp_path: Path,
    path: str,
    message: bytes | None,
    options: tuple[str, ...],
    status: str,
    words: str,
) -> None:
    headers, body = curl(server, path, tmp_path, message, *options)
    assert headers.startswith(f"HTTP/2 {status}")
    assert words in headers
    assert body == b""


def test_curl_with_http_1_is_hung_up_on(server: ServerThread) -> None:
    done = run(tool("curl"), "-sS", "--http1.1", "--max-time", "20", f"http://{server.target}/test.Echo/Echo")
    assert done.returncode not in (0, 28)


# --- nghttp2 -----------------------------------------------------------------------------------


def test_nghttp_finds_no_fault_with_frames_and_trailers(server: ServerThread, tmp_path: Path) -> None:
    question = tmp_path / "question"
    question.write_bytes(encode_message(bytes(100_000)))
    url = f"http://{server.target}/test.Echo/Echo"
    fields = ("-H:method: POST", "-Hcontent-type: application/grpc", "-Hte: trailers")
    done = run(tool("nghttp"), "-v", "--null-out", *fields, "-d", question, url, url, "-m", "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("grpc-status: 0") == 6
    assert "error_code=NO_ERROR" in done.stdout
    assert "PROTOCOL_ERROR" not in done.stdout


# --- grpc-go -----------------------------------------------------------------------------------


class OfEtcd(EchoService):
    """Enough of etcd for a put, and a refusal."""

    def methods(self) -> dict[str, Method]:
        return {"/etcdserverpb.KV/Put": Unary(self.put), "/etcdserverpb.KV/Range": Unary(self.fail_range)}

    def put(self, call: Call, message: bytes) -> None:
        self.told.put(("put", message))
        call.reply(b"")

    def fail_range(self, call: Call, message: bytes) -> None:
        call.fail(Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")


def test_etcdctl_calls_and_reads_statuses() -> None:
    etcdctl = tool("etcdctl")
    with ServerThread(ServerOptions(drain_s=1.0), service=OfEtcd()) as server:
        done = run(etcdctl, "--endpoints", server.target, "put", "key", "value")
        assert (done.returncode, done.stdout) == (0, "OK\n"), done.stderr
        assert server.service.wait_for("put") == b"\n\x03key\x12\x05value"
        done = run(etcdctl, "--endpoints", server.target, "get", "key")
        assert "etcdserver: mvcc: required revision has been compacted" in done.stderr
        done = run(etcdctl, "--endpoints", server.target, "compaction", "1")
        assert "unknown method Compact for service etcdserverpb.KV" in done.stderr
        done = run(etcdctl, "--endpoints", server.target, "lease", "list")
        assert "unknown service etcdserverpb.Lease" in done.stderr


# --- @grpc/grpc-js -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def grpc_js(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which node finds it."""
    folder = tmp_path_factory.mktemp("grpc-js")
    npm = shutil.which("npm")
    tool("node")
    try:
        assert npm is not None
        done = run(npm, "install", "--no-audit", "--no-fund", GRPC_JS, folder=folder, limit_s=NPM_LIMIT_S)
        assert done.returncode == 0
    except (AssertionError, subprocess.TimeoutExpired):
        pytest.skip(f"NOT TRIED WITH {GRPC_JS}: npm or its registry cannot be reached")
    return folder


def test_grpc_js_makes_calls_of_every_kind(server: ServerThread, grpc_js: Path) -> None:
    script = Path(__file__).with_name("grpc_js_peer.js")
    done = run(tool("node"), script, server.target, folder=grpc_js)
    assert done.returncode == 0, done.stderr
    seen = dict(json.loads(line) for line in done.stdout.splitlines())
    assert seen == {
        "unary": "hello",
        "large": 1 << 20,
        "error": [5, "schön 100 %"],
        "missing": [12, "unknown method Missing for service test.Echo"],
        "deadline": 4,
        "server stream": ["x", "x", "x", 0],
        "bidi": ["one", "two", 0],
        "bidi error": [10],
        "client stream": "onetwo",
        "many": True,
    }
    server.service.wait_for("over")
