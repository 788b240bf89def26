"""`pytest tests/simulation --update-diagrams` writes the golden diagrams anew; review the difference."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-diagrams", action="store_true", help="write the golden files of tests/simulation anew")
