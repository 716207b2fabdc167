"""The interpreters of a compatibility run: a file named like one is not enough, it must run."""

import sys
from pathlib import Path

import pytest

from .interpreters import MissingPython, find_interpreters, promised_versions

ROOT = Path(__file__).parents[2]
RUNNING = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture
def path(tmp_path, monkeypatch) -> Path:
    """Folder that alone is on PATH and has no pyenv, for scripts that pretend to be Python."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'shims'}:{tmp_path / 'bin'}")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return tmp_path


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_shim_that_does_not_run_is_skipped(path):
    script(path / "shims" / "python3.98", "echo 'command not found' >&2; exit 127")
    real = script(path / "bin" / "python3.98", "echo 3.98")
    assert find_interpreters(["3.98"]) == {"3.98": real}


def test_an_interpreter_of_another_version_is_skipped(path):
    script(path / "bin" / "python3.98", "echo 3.97")
    installed = script(path / "pyenv" / "versions" / "3.98.1" / "bin" / "python3.98", "echo 3.98")
    assert find_interpreters(["3.98"]) == {"3.98": installed}


def test_this_interpreter_runs(path):
    (path / "bin").mkdir()
    (path / "bin" / f"python{RUNNING}").symlink_to(sys.executable)
    assert find_interpreters([RUNNING]) == {RUNNING: path / "bin" / f"python{RUNNING}"}


def test_each_missing_version_is_named(path):
    script(path / "bin" / "python3.98", "echo 3.98")
    script(path / "bin" / "python3.99", "exit 1")
    with pytest.raises(MissingPython, match=r"expected Python 3\.97, 3\.98, 3\.99, .*") as raised:
        find_interpreters(["3.97", "3.98", "3.99"])
    assert "none that runs for 3.97, 3.99: put python3.97 on PATH" in str(raised.value)


def test_the_promised_versions_begin_with_the_lowest_that_installs():
    versions = promised_versions(ROOT / "pyproject.toml")
    assert versions == ("3.11", "3.12", "3.13")
    assert f'requires-python = ">={versions[0]}"' in (ROOT / "pyproject.toml").read_text()
