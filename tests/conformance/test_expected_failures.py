"""The list of what huggingface_hub's own tests find wanting here is well-formed, and is judged by."""

import re
import sys
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import run  # noqa: E402

EXPECTED = run.read_expected()


def test_every_failure_is_a_test_with_one_reason():
    names = [name for tests in EXPECTED.values() for name in tests]
    assert len(names) == len(set(names)) > 0
    for name in names:
        assert re.fullmatch(r"test_\w+\.py(::\w+)?::test_\w+(\[.+\])?", name), name
    for reason, tests in EXPECTED.items():
        assert len(reason) > 20 and tests == sorted(tests), reason


def test_it_is_the_pinned_client_that_is_asked():
    assert re.fullmatch(r"\d+\.\d+\.\d+", run.pinned_version())
    text = (HERE / "expected_failures.yaml").read_text()
    assert text.startswith(f"# Of huggingface_hub {run.pinned_version()}")
    assert yaml.safe_load(text) == EXPECTED


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        ({}, 0, "1,250 passed, 2 failed, 0 were skipped"),
        ({"test_x.py::test_new": "failed"}, 1, "1 tests fail, and are not listed:\n  test_x.py::test_new\n"),
        ({"test_x.py::test_a": "passed"}, 1, "1 tests are listed as failing, and pass:\n  test_x.py::test_a\n"),
        ({"test_x.py::test_a": None}, 1, "1 tests are listed, and are no tests:\n  test_x.py::test_a\n"),
        ({"test_x.py::test_1": "skipped"}, 1, "1,249 passed, 2 failed, 1 were skipped"),
    ],
)
def test_only_what_is_listed_may_fail_and_must(capsys, change, code, told):
    results = {f"test_x.py::test_{number}": "passed" for number in range(run.LEAST)}
    results |= {"test_x.py::test_a": "failed", "test_x.py::test_b": "failed"}
    results = {name: outcome for name, outcome in (results | change).items() if outcome}
    assert run.judge(results, {"a reason": ["test_x.py::test_a"], "another": ["test_x.py::test_b"]}) == code
    assert told in capsys.readouterr().out


def test_a_report_gives_each_test_its_name(tmp_path):
    path = tmp_path / "report.xml"
    path.write_text(
        "<testsuites><testsuite>"
        '<testcase classname="tests.test_a" name="test_1[x.y]"/>'
        '<testcase classname="tests.test_a.TestB" name="test_2"><error/></testcase>'
        '<testcase classname="tests.test_a.TestB" name="test_3"><skipped/></testcase>'
        "</testsuite></testsuites>"
    )
    assert run.read_report(path) == {
        "test_a.py::test_1[x.y]": "passed",
        "test_a.py::TestB::test_2": "failed",
        "test_a.py::TestB::test_3": "skipped",
    }
