"""The example runs, and shows what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "order_payment" / "order_payment.py"


def test_the_example_blocks_while_the_coordinator_is_gone_and_ends_as_it_decided() -> None:
    done = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum(line.endswith("in doubt, and holds its locks") for line in lines) == 2 * 3
    assert lines[-3:] == [
        "  orders   {'order-1': 2, 'order-4': 1}",
        "  stock    {'apples': 7}",
        "  payment  {'ann': 55, 'till': 45}",
    ]
