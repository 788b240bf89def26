"""docs/own_state_machine.md says what is so: its code runs."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import quorate
from quorate.simulation.own import Simulate
from tests.statemachine.conftest import Peers

PAGE = Path(__file__).parents[2] / "docs" / "own_state_machine.md"


@pytest.fixture
def blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The page's Python, in order; its first block can be imported as `stock`."""
    found = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "stock.py").write_text(found[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "stock", raising=False)
    return found


def run(code: str, **names: Any) -> dict[str, Any]:
    exec(compile(code, str(PAGE), "exec"), names)
    return names


@pytest.mark.processes
def test_one_node(blocks: list[str], peers: Peers, capsys: pytest.CaptureFixture[str]) -> None:
    names = run(blocks[1].replace("asyncio.run(main(int(sys.argv[1])))", ""))
    names["MEMBERS"] = dict(enumerate(peers(1)))

    async def until_it_has_said_all() -> None:
        node = asyncio.create_task(names["main"](0))
        said = ""
        while said.count("\n") < 3 and not node.done():
            await asyncio.sleep(0.01)
            said += capsys.readouterr().out
        node.cancel()
        await asyncio.wait([node])
        assert said == "3\nsold out: apples\n3\n"

    asyncio.run(until_it_has_said_all())


@pytest.mark.processes
def test_an_embedded_cluster(blocks: list[str]) -> None:
    names = run(f"import quorate\nfrom stock import Stock\n{blocks[2]}")
    asyncio.run(names["test_stock"]())


def test_the_simulation(blocks: list[str], simulate: Simulate) -> None:
    runs: list[Counter[str]] = []

    def once(**given: Any) -> None:
        runs.append(simulate(**{**given, "seeds": 1, "duration_s": 2}))

    run(blocks[3])["test_stock"](once)
    assert runs[0]["add"] and runs[0]["take"]


def test_each_name_of_the_package_is_explained() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in quorate.__all__ if f"quorate.{name}" not in text] == []
    assert {name: getattr(quorate, name).__doc__ for name in quorate.__all__}
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = quorate.Nothing
