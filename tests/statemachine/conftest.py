"""What these tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TypeAlias

import pytest

from quorate.statemachine.embedded import loopback_ports

Peers: TypeAlias = Callable[[int], list[str]]


@pytest.fixture
def peers() -> Iterator[Peers]:
    """So many addresses of loopback that nobody else gets before the test has ended."""
    with ExitStack() as stack:
        yield lambda count: [f"127.0.0.1:{port}" for port in stack.enter_context(loopback_ports(count))]
