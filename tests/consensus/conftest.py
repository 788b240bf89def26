"""`pytest tests/consensus --update-traces` writes the golden traces anew; review the difference."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-traces", action="store_true", help="write the golden traces of tests/consensus anew")
