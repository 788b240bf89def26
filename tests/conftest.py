"""What holds for all tests."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The simulator's files first: they take longest, and with several workers the last one is waited for."""
    items.sort(key=lambda item: "simulation" not in item.path.parts)
