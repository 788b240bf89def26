"""python-etcd3's own test suite, unmodified: what passes against etcd passes against Quorate.

    PYTHON_ETCD3=1 pytest tests/services/etcd/test_python_etcd3.py      runs the suite against Quorate, some minutes

The document is written by `python -m tests.services.etcd.python_etcd3`, which runs it against etcd too.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.services.etcd.peer import require_etcd
from tests.services.etcd.python_etcd3 import (
    DOCUMENT,
    SUITE_S,
    listed_as_passing,
    outcomes,
    quorate_for_the_suite,
    render,
    run_suite,
)

REPORT = """<testsuites><testsuite>
<testcase classname="tests.test_etcd3.TestEtcd3" name="test_a"/>
<testcase classname="tests.test_etcd3.TestEtcd3" name="test_b"><failure/></testcase>
<testcase classname="tests.test_etcd3.TestEtcd3" name="test_b"/>
<testcase classname="tests.test_etcd3.TestEtcd3" name="test_c"><skipped/></testcase>
</testsuite></testsuites>"""


def test_a_test_whose_fixture_failed_has_failed() -> None:
    assert outcomes(REPORT) == {
        "TestEtcd3.test_a": "passed",
        "TestEtcd3.test_b": "failed",
        "TestEtcd3.test_c": "skipped",
    }


def test_the_document_names_what_passes_and_marks_what_differs() -> None:
    etcd = {"TestEtcd3.test_a": "passed", "TestEtcd3.test_b": "passed", "TestAlarms.test_list_alarms": "passed"}
    quorate = {"TestEtcd3.test_a": "passed", "TestEtcd3.test_b": "failed", "TestAlarms.test_list_alarms": "failed"}
    document = render(etcd, quorate)
    assert listed_as_passing(document) == {"TestEtcd3.test_a"}
    assert "| `TestEtcd3.test_b` | passed | failed | **differs** |" in document
    assert "| `TestAlarms.test_list_alarms` | passed | failed | Maintenance: Alarm |" in document


def test_nothing_in_the_document_differs_without_a_reason() -> None:
    assert listed_as_passing(DOCUMENT.read_text()), "the document lists no test: write it anew"
    assert "**differs**" not in DOCUMENT.read_text()


@pytest.mark.skipif(not os.environ.get("PYTHON_ETCD3"), reason="takes minutes: PYTHON_ETCD3=1 to run it")
@pytest.mark.processes
@pytest.mark.timeout(SUITE_S + 60)
def test_the_document_lists_no_test_as_passing_that_fails(tmp_path: Path) -> None:
    require_etcd("etcdctl")
    with quorate_for_the_suite(tmp_path) as quorate:
        found = run_suite(quorate)
    failed = {name for name in listed_as_passing(DOCUMENT.read_text()) if found.get(name) != "passed"}
    assert not failed, "\n".join(sorted(failed))
