"""Addresses of members, compared so that two ways to write one address are one address."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]{1,253})):([0-9]{1,5})", re.ASCII)


def normalise(text: str) -> str:
    """`host:port` in the one form that equal addresses share.  Raises ValueError that says what is allowed.

    Names are compared as they are written, but for case: the store may not ask a name server.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or not 1 <= int(match[3]) <= 65535:
        raise ValueError(f'{text!r} is not "host:port" with a port from 1 to 65535 (an IPv6 host in brackets)')
    host = (match[1] or match[2]).lower()
    if match[1] is not None or re.fullmatch(r"[0-9.]+", host):
        try:
            number = ipaddress.ip_address(host)
        except ValueError as error:
            raise ValueError(f"{text!r} is not an address: {error}") from error
        if number.is_unspecified:
            raise ValueError(f"{text!r} is not an address that other nodes can connect to")
        host = f"[{number}]" if number.version == 6 else str(number)
    return f"{host}:{int(match[3])}"
