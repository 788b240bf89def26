"""TLS at the server: HTTP/2 by ALPN, with and without certificates of clients."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from quorate.net.grpc.calls import ServerOptions
from quorate.net.grpc.tls import EncryptedKey, server_context
from tests.net.grpc.echo import HOST, LIMIT_S, ServerThread

ECHO = "/test.Echo/Echo"


class Certificates:
    """`ours` and `theirs` are authorities; each has signed a `client`, ours also a `server` for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for authority in ("ours", "theirs"):
            self._openssl(
                "req", "-x509", *self._new_key(authority), "-subj", f"/CN={authority}", "-out", f"{authority}.pem"
            )
            self._sign(f"client-of-{authority}", authority)
        self._sign("server", "ours")

    def _new_key(self, name: str) -> list[str]:
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key"]

    def _sign(self, name: str, authority: str) -> None:
        self._openssl("req", *self._new_key(name), "-subj", f"/CN={name}", "-out", f"{name}.request")
        (self.folder / "extensions").write_text(f"subjectAltName=IP:{HOST}\n")
        by = ("-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial")
        self._openssl("x509", "-req", "-in", f"{name}.request", *by, "-extfile", "extensions", "-out", f"{name}.pem")

    def _openssl(self, *command: str) -> None:
        subprocess.run(["openssl", *command], cwd=self.folder, check=True, capture_output=True, timeout=LIMIT_S)

    def path(self, name: str) -> Path:
        return self.folder / name

    def server_context(self, *, with_clients: bool) -> ssl.SSLContext:
        client_ca = self.path("ours.pem") if with_clients else None
        return server_context(self.path("server.pem"), self.path("server.key"), client_ca)

    def channel(self, server: ServerThread, client: str | None = None, authority: str = "ours") -> Any:
        credentials = grpc.ssl_channel_credentials(
            self.path(f"{authority}.pem").read_bytes(),
            self.path(f"{client}.key").read_bytes() if client else None,
            self.path(f"{client}.pem").read_bytes() if client else None,
        )
        return grpc.secure_channel(server.target, credentials, options=[("grpc.use_local_subchannel_pool", 1)])


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if shutil.which("openssl") is None:
        pytest.skip("TLS NOT TRIED: install openssl to run this test")
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=["asyncio", "uvloop"])
def server(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[ServerThread]:
    tls = certificates.server_context(with_clients=False)
    with ServerThread(ServerOptions(drain_s=1.0), tls, on_uvloop=request.param == "uvloop") as running:
        yield running


@pytest.fixture(params=["asyncio", "uvloop"])
def strict_server(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[ServerThread]:
    """It wants certificates of its clients."""
    tls = certificates.server_context(with_clients=True)
    with ServerThread(ServerOptions(drain_s=1.0), tls, on_uvloop=request.param == "uvloop") as running:
        yield running


def refusal(channel: Any) -> grpc.StatusCode:
    with channel, pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(ECHO)(b"hello", timeout=LIMIT_S)
    error: Any = raised.value
    code: grpc.StatusCode = error.code()
    return code


def test_calls_over_tls(server: ServerThread, certificates: Certificates) -> None:
    with certificates.channel(server) as client:
        message = bytes(1_000_000)
        assert client.unary_unary(ECHO)(message, timeout=LIMIT_S) == message
        assert list(client.stream_stream("/test.Echo/Bidi")(iter([b"1", b"2"]), timeout=LIMIT_S)) == [b"1", b"2"]
        flood = client.unary_stream("/test.Echo/Flood")(b"500", timeout=LIMIT_S)
        assert sum(map(len, flood)) == 5_000_000


def test_a_client_that_trusts_another_authority_does_not_connect(
    server: ServerThread, certificates: Certificates
) -> None:
    assert refusal(certificates.channel(server, authority="theirs")) is grpc.StatusCode.UNAVAILABLE


def test_only_clients_with_our_certificates_are_let_in(strict_server: ServerThread, certificates: Certificates) -> None:
    with certificates.channel(strict_server, "client-of-ours") as client:
        assert client.unary_unary(ECHO)(b"hello", timeout=LIMIT_S) == b"hello"
    assert refusal(certificates.channel(strict_server)) is grpc.StatusCode.UNAVAILABLE
    assert refusal(certificates.channel(strict_server, "client-of-theirs")) is grpc.StatusCode.UNAVAILABLE
    assert strict_server.server.counters.calls == 1


def test_http_2_is_agreed_on_and_old_tls_is_not(server: ServerThread, certificates: Certificates) -> None:
    context = ssl.create_default_context(cafile=str(certificates.path("ours.pem")))
    context.set_alpn_protocols(["http/1.1", "h2"])
    with (
        socket.create_connection((HOST, server.port)) as raw,
        context.wrap_socket(raw, server_hostname=HOST) as wrapped,
    ):
        assert wrapped.selected_alpn_protocol() == "h2"
        assert wrapped.version() in ("TLSv1.2", "TLSv1.3")
    with pytest.warns(DeprecationWarning):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.minimum_version = ssl.TLSVersion.TLSv1
    with (
        socket.create_connection((HOST, server.port)) as raw,
        pytest.raises(OSError),
        context.wrap_socket(raw, server_hostname=HOST),
    ):
        pass


def test_who_speaks_plainly_or_not_at_all_is_hung_up_on(certificates: Certificates) -> None:
    tls = certificates.server_context(with_clients=False)
    with ServerThread(ServerOptions(handshake_s=0.2, drain_s=1.0), tls) as server:
        with socket.create_connection((HOST, server.port), LIMIT_S) as plain:
            plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert until_closed(plain)
        with socket.create_connection((HOST, server.port), LIMIT_S) as silent:
            assert until_closed(silent)
        with certificates.channel(server) as client:
            assert client.unary_unary(ECHO)(b"hello", timeout=LIMIT_S) == b"hello"


def until_closed(connection: socket.socket) -> bool:
    """Whether the other end closes; raises TimeoutError where it does not."""
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


def test_a_context_of_files_that_are_missing_or_none_is_an_error(certificates: Certificates, tmp_path: Path) -> None:
    with pytest.raises(OSError):
        server_context(tmp_path / "no.pem", certificates.path("server.key"))
    with pytest.raises(OSError):
        server_context(certificates.path("server.pem"), certificates.path("ours.key"))


@pytest.mark.parametrize("form", ["pkey", "ec"])
def test_a_key_that_is_encrypted_is_refused_by_its_name(certificates: Certificates, tmp_path: Path, form: str) -> None:
    """OpenSSL asked for the passphrase at the terminal, or said "Invalid argument" where there is none."""
    encrypted = tmp_path / "encrypted.key"
    command = ["openssl", form, "-in", "server.key", "-aes128", "-passout", "pass:secret", "-out", str(encrypted)]
    subprocess.run(command, cwd=certificates.folder, check=True, capture_output=True, timeout=LIMIT_S)
    with pytest.raises(EncryptedKey, match=re.escape(f"{encrypted} is encrypted")):
        server_context(certificates.path("server.pem"), encrypted)
