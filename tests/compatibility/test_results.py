"""The table of a compatibility run, from the reports that pytest writes."""

from pathlib import Path

import pytest

from .results import Result, read_report, table

REPORT = (
    '<?xml version="1.0"?><testsuites><testsuite name="pytest" errors="{errors}"'
    ' failures="{failures}" skipped="2" tests="{tests}" time="61.6"/></testsuites>'
)


def report(folder: Path, **counts: int) -> Path:
    path = folder / "report.xml"
    path.write_text(REPORT.format(**counts))
    return path


def test_a_report_in_which_tests_passed_is_a_success(tmp_path):
    result = read_report("lowest", "3.11", report(tmp_path, tests=1502, failures=0, errors=0))
    assert result == Result("lowest", "3.11", passed=1500, failed=0, skipped=2, seconds=61.6)
    assert result.is_success


@pytest.mark.parametrize(("failures", "errors"), [(1, 0), (0, 1)])
def test_a_failure_and_an_error_in_a_fixture_are_failures(tmp_path, failures, errors):
    result = read_report(
        "lowest", "3.11", report(tmp_path, tests=9, failures=failures, errors=errors)
    )
    assert (result.passed, result.failed, result.is_success) == (6, 1, False)


def test_a_run_that_tested_nothing_is_no_success(tmp_path):
    assert not read_report("lowest", "3.11", tmp_path / "absent.xml").is_success
    empty = read_report("lowest", "3.11", report(tmp_path, tests=2, failures=0, errors=0))
    assert not empty.is_success


def test_the_table_has_a_row_for_each_environment():
    results = [Result("3.13", "3.13", 3100, 0, 75, 600.4), Result("lowest", "3.11", 1, 2, 0, 9.0)]
    assert table(results).splitlines() == [
        "| environment | Python | passed | failed | skipped | seconds |",
        "| --- | --- | --- | --- | --- | --- |",
        "| 3.13 | 3.13 | 3,100 | 0 | 75 | 600 |",
        "| lowest | 3.11 | 1 | 2 | 0 | 9 |",
    ]
