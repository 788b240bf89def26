"""python-etcd3's own test suite, unmodified, against a real etcd and against Quorate, three nodes each.

    python -m tests.services.etcd.python_etcd3            run both (some minutes) and write docs/compatibility.md
    python -m tests.services.etcd.python_etcd3 --print    only print the table

The suite is that of the source distribution on PyPI, which `pip` fetches into a cache folder; nothing of it is
committed.  It runs in an environment of its own, as it needs old releases of what it uses (PINS).  It wants three
things of its cluster, all of which pifpaf would give it: a node at 127.0.0.1:2379; members that it finds by
`--name pifpaf1` and `--name pifpaf2` in their command lines, which it stops and continues; and etcdctl.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path

from quorate.node.config import Address, render_config
from tests.services.etcd.peer import Etcd, Peer, Quorate, environment

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "compatibility.md"
BEGIN, END = "<!-- python-etcd3: generated -->\n", "<!-- /python-etcd3 -->\n"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "quorate-python-etcd3"
RELEASE = "0.12.0"
PINS = ("protobuf<3.21", "hypothesis<5", "pytest<8", "pytest-timeout", "tenacity<7", "grpcio", "mock", "six")
"""The generated messages want protobuf 3; the tests' fixtures under `given` an old hypothesis; Lock an old tenacity."""
CLIENT_PORT = 2379
EACH_TEST_S = 120
SUITE_S = 1200

LATER = {
    "hash": "Maintenance: Hash",
    "snapshot": "Maintenance: Snapshot",
    "alarm": "Maintenance: Alarm",
    "defragment": "Maintenance: Defragment",
    "user_pwd_auth": "Auth",
}
"""Words in the names of tests whose calls Quorate does not have yet, and which those are."""
OTHERWISE = {"member_list": "wants members that are called `pifpaf...`; those of Quorate are called `node-N`"}
"""Words in the names of tests that no other server than pifpaf's can pass, and why."""


def prepare() -> tuple[Path, Path]:
    """Fetch the suite and make its environment, once; (the suite's folder, its Python)."""
    suite, python = CACHE / f"etcd3-{RELEASE}", CACHE / "environment" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", CACHE / "environment"], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PINS], check=True)
    if not suite.exists():
        fetch: list[str | Path] = [python, "-m", "pip", "download", "--quiet", "--no-binary", ":all:", "--no-deps"]
        subprocess.run([*fetch, "--dest", CACHE, f"etcd3=={RELEASE}"], check=True)
        with tarfile.open(CACHE / f"etcd3-{RELEASE}.tar.gz") as archive:
            archive.extractall(CACHE, filter="data")
    return suite, python


def run_suite(peer: Peer, only: Sequence[str] = ()) -> dict[str, str]:
    """Name of a test -> "passed", "failed" or "skipped"."""
    suite, python = prepare()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command: list[str | Path] = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--timeout={EACH_TEST_S}"]
        variables = {"PYTHON_ETCD_HTTP_URL": f"http://{peer.endpoints[0]}", "TEST_ETCD_VERSION": "v3.4"}
        finished = subprocess.run(
            [*command, f"--junitxml={report}", *(only or ["tests"])],
            cwd=suite,
            env={**environment(), **variables, "PYTHONPATH": f"{suite}:{suite / 'etcd3'}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SUITE_S,
            check=False,
        )
        (CACHE / f"{peer.name}.log").write_text(finished.stdout)
        return outcomes(report.read_text())


def outcomes(report: str) -> dict[str, str]:
    """From JUnit's XML.  A test whose fixture failed, before or behind it, has failed."""
    found: dict[str, str] = {}
    for case in ElementTree.fromstring(report).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}.{case.get('name')}"
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        found[name] = "failed" if "failed" in (outcome, found.get(name)) else outcome
    return found


def etcd_for_the_suite(folder: Path) -> Etcd:
    return Etcd(folder, 3, node_name="pifpaf", first_client_port=CLIENT_PORT)


def quorate_for_the_suite(folder: Path) -> Quorate:
    """Its nodes read their settings by paths in which the suite finds the names that it looks for."""
    peer = Quorate(folder, 3)
    for node in peer.cluster.nodes:
        by_name = folder / f"--name pifpaf{node.node}"
        by_name.symlink_to(node.folder)
        node.config_path = by_name / node.config_path.name
    first = peer.cluster.nodes[0]
    listen = dataclasses.replace(first.config.listen, etcd=Address("127.0.0.1", CLIENT_PORT))
    first.config = dataclasses.replace(first.config, listen=listen)
    first.config_path.write_text(render_config(first.config))
    return peer


def note_of(name: str, etcd: str, quorate: str) -> str:
    if etcd == quorate or quorate == "passed":
        return ""
    return next((why for word, why in {**LATER, **OTHERWISE}.items() if word in name), "**differs**")


def render(etcd: Mapping[str, str], quorate: Mapping[str, str]) -> str:
    """The section of the document."""
    rows = [
        f"| `{name}` | {etcd[name]} | {quorate.get(name, 'missing')} | {note_of(name, etcd[name], quorate[name])} |"
        for name in etcd
    ]
    both = sum(etcd[name] == quorate.get(name) == "passed" for name in etcd)
    theirs = sum(outcome == "passed" for outcome in etcd.values())
    return "\n".join(
        [
            f"Of {len(etcd)} tests of python-etcd3 {RELEASE}, {theirs} pass against etcd 3.4, and {both} of these "
            "against Quorate.",
            "",
            "| test | etcd 3.4 | Quorate | why |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def listed_as_passing(document: str) -> set[str]:
    """The tests that the document says pass against Quorate."""
    cells = [line.split("|") for line in document.splitlines() if line.startswith("| `Test")]
    return {row[1].strip().strip("`") for row in cells if row[3].strip() == "passed"}


def write(section: str) -> None:
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{section}\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", help="only print the table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="python-etcd3-") as folder:
        with etcd_for_the_suite(Path(folder) / "etcd") as etcd:
            theirs = run_suite(etcd)
        with quorate_for_the_suite(Path(folder) / "quorate") as quorate:
            ours = run_suite(quorate)
    section = render(theirs, ours)
    if arguments.print:
        print(section)
    else:
        write(section)


if __name__ == "__main__":
    main()
