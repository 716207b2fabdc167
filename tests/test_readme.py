"""Tests that each console command of the README gives the output that the README shows.

`…` in the output stands for any text.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsoftmax.service.http import bounds
from hsoftmax.service.settings import Settings

from .console import console_commands

ROOT = Path(__file__).parent.parent
EXAMPLE = "examples/state_of_the_union"
COMMANDS = console_commands((ROOT / "README.md").read_text("utf-8"))


def matches(shown: str, printed: str) -> bool:
    """Return True if the output is as shown, apart from white space; `…` matches any text."""
    pattern = ".*?".join(re.escape("".join(part.split())) for part in shown.split("…"))
    return re.fullmatch(pattern, "".join(printed.split())) is not None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a new user: only the checkout."""
    folder = tmp_path_factory.mktemp("newcomer")
    shutil.copytree(ROOT / EXAMPLE, folder / EXAMPLE)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    cache = str(tmp_path_factory.mktemp("cache"))
    return {**os.environ, "PATH": path, "XDG_CACHE_HOME": cache, "COLUMNS": "100"}


@pytest.fixture(scope="module")
def demonstration(environment: dict[str, str], folder: Path) -> Iterator[str]:
    """Port of a running server of `make demo`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = ["hsoftmax", "demo", "--port", port]
    process = subprocess.Popen(
        command, env=environment, cwd=folder, stdout=subprocess.PIPE, text=True
    )
    try:
        assert any("Still serving" in line for line in process.stdout)
        yield port
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0
        process.stdout.close()


def test_the_readme_shows_commands():
    assert len(COMMANDS) >= 3


def test_every_command_prints_what_the_readme_shows(demonstration, environment, folder):
    for command, shown in COMMANDS:
        done = subprocess.run(
            command.replace("127.0.0.1:8000", f"127.0.0.1:{demonstration}"),
            shell=True,
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert matches(shown, done.stdout), f"{command}\nshown:\n{shown}\nprinted:\n{done.stdout}"


def test_the_two_commands_of_the_first_screen_exist():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    shown = re.findall(r"^make ([a-z-]+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert shown[:2] == ["demo", "test"]
    assert set(shown) <= set(targets)


def test_the_table_of_extras_is_that_of_the_project():
    page = (ROOT / "README.md").read_text("utf-8").split("## Install")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ((?:`[a-z0-9-]+`(?:, )?)+) \|", page, flags=re.MULTILINE)
    shown = [extra for row in rows for extra in re.findall(r"`([^`]+)`", row)]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert sorted(shown) == sorted(project["optional-dependencies"])


def test_the_security_page_names_settings_and_paths_that_exist():
    page = (ROOT / "SECURITY.md").read_text("utf-8")
    flags = {flag.replace("-", "_") for flag in re.findall(r"`--([a-z-]+)`", page)}
    flags |= {name.lower() for name in re.findall(r"`HSOFTMAX_([A-Z_]+)`", page)}
    assert len(flags) > 10
    assert flags - {"version"} <= Settings.model_fields.keys()
    paths = re.findall(r"`([\w]+/[\w./]+)`", page)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_security_page_has_the_bounds_of_a_head():
    url, head = bounds.MAX_URL_BYTES // 1024, bounds.MAX_HEAD_BYTES // 1024
    shown = f"the URL ({url} KiB), the head ({head} KiB, {bounds.MAX_HEADERS} headers)"
    assert shown in (ROOT / "SECURITY.md").read_text("utf-8")


def test_the_documents_load_nothing_from_elsewhere_to_show_a_page():
    with urllib.request.urlopen((ROOT / "docs/images/path.svg").as_uri()) as picture:
        content = picture.read().decode()
    assert re.findall(r'(?:href|src)="http', content) == []
