"""A compatibility run as a whole, with fakes for what installs packages and runs tests."""

from pathlib import Path

import pytest

from . import __main__ as compatibility
from .environments import FailedStep
from .interpreters import MissingPython
from .results import Result


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Function that runs the tool, where the tests of some environments fail."""

    def run(name: str = "", failing: tuple[str, ...] = (), broken: tuple[str, ...] = ()) -> int:
        def install(environment, interpreter):
            if environment.name in broken:
                raise FailedStep("pip ended with exit code 1")

        def read_report(name, python, path):
            return Result(name, python, passed=7, failed=int(name in failing))

        monkeypatch.setenv("COMPAT", name)
        monkeypatch.setattr(compatibility, "FOLDER", tmp_path)
        monkeypatch.setattr(compatibility, "find_interpreters", lambda v: dict.fromkeys(v, Path()))
        monkeypatch.setattr(compatibility, "install", install)
        monkeypatch.setattr(compatibility, "run_tests", lambda environment, arguments: tmp_path)
        monkeypatch.setattr(compatibility, "read_report", read_report)
        return compatibility.main()

    return run


def rows(capsys) -> list[list[str]]:
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    return [line.strip("| ").split(" | ")[:4] for line in lines[2:]]


def test_all_environments_run_in_order(run, capsys):
    assert run() == 0
    assert [row[:2] for row in rows(capsys)] == [
        ["3.11", "3.11"],
        ["3.12", "3.12"],
        ["3.13", "3.13"],
        ["lowest", "3.11"],
        ["newest", "3.11"],
    ]


def test_one_failed_environment_fails_the_run_after_the_others_ran(run, capsys):
    assert run(failing=("3.12",)) == 1
    assert [row[3] for row in rows(capsys)] == ["0", "1", "0", "0", "0"]


def test_an_environment_that_cannot_be_made_fails_the_run(run, capsys):
    assert run(broken=("lowest",)) == 1
    assert [row[2] for row in rows(capsys)] == ["7", "7", "7", "0", "7"]


def test_one_environment_can_be_chosen(run, capsys):
    assert run("newest") == 0
    assert rows(capsys) == [["newest", "3.11", "7", "0"]]


def test_an_unknown_environment_is_one_line(run, capsys):
    assert run("3.10") == 1
    assert capsys.readouterr().err == (
        "compat: COMPAT: expected one of 3.11, 3.12, 3.13, lowest, newest, got '3.10'\n"
    )


def test_a_missing_interpreter_ends_the_run_before_any_test(run, capsys, monkeypatch):
    def find(versions):
        raise MissingPython("expected Python 3.11, 3.12, 3.13")

    monkeypatch.setenv("COMPAT", "")
    monkeypatch.setattr(compatibility, "find_interpreters", find)
    assert compatibility.main() == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "compat: expected Python 3.11, 3.12, 3.13\n")
