"""TLS as gRPC wants it: HTTP/2 agreed on by ALPN, and TLS 1.2 at least (RFC 9113, section 9.2)."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final, NoReturn

_ALPN: Final = "h2"


class EncryptedKey(OSError):
    """A private key that would take a passphrase."""


def server_context(certificate: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """For a server with this certificate (PEM, with its chain).

    With `client_ca` only clients with a certificate from it are let in.  Raises OSError where a file cannot be read,
    ssl.SSLError (an OSError) where it is not what it should be, EncryptedKey where the key is encrypted.
    """

    def refuse() -> NoReturn:
        # Without this, OpenSSL asks at the terminal, and a server that has none gets "Invalid argument".
        raise EncryptedKey(f"{key} is encrypted")

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key, refuse)
    context.set_alpn_protocols([_ALPN])
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
