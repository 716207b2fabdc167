"""Runs the commands and programs of docs/batch.md, and compares what they print."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsoftmax import exporter
from tests.console import console_commands
from tests.service.processes import Process

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "batch.md").read_text("utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    example = "examples/state_of_the_union"
    shutil.copytree(ROOT / example, folder / example)
    subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAMS[0]], check=True, cwd=folder)
    return folder


def test_the_commands_print_the_output_on_the_page(folder):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for command, shown in console_commands(PAGE):
        done = subprocess.run(
            command, shell=True, cwd=folder, env={**os.environ, "PATH": path},
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        pattern = ".*?".join(re.escape(part) for part in shown.split("…"))
        assert re.fullmatch(pattern, done.stdout, flags=re.DOTALL), (command, done.stdout)


@pytest.fixture
def process(folder) -> Iterator[Process]:
    """A server for the bundle of the page, which is exported here if no test did before."""
    if not (folder / "repository").exists():
        example = folder / "examples" / "state_of_the_union"
        exporter.export_file(
            example / "weights.npz", folder / "repository" / "sotu",
            source="theano", labels=example / "labels.txt",
        )  # fmt: skip
    process = Process(folder / "repository")
    yield process
    process.end()


def test_the_client_prints_the_output_on_the_page(folder, process):
    (shown,) = re.findall(r"```text\n(.*?)```", PAGE, flags=re.DOTALL)
    program = PROGRAMS[1].replace("127.0.0.1:8000", process.address)
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, cwd=folder, capture_output=True, text=True
    )
    assert done.stdout == shown
