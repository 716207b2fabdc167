"""What docs/batch.md shows is what happens: its commands are run as printed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "batch.md").read_text("utf-8")


def commands() -> list[tuple[str, str]]:
    """(command, output) of every console block, in order."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command = re.match(r"(?:.*\\\n)*.*\n", part).group()
            found.append((command.replace("\\\n", ""), part[len(command) :]))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    example = "examples/state_of_the_union"
    shutil.copytree(ROOT / example, folder / example)
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, cwd=folder)
    return folder


def test_the_commands_print_what_the_page_shows(folder):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for command, shown in commands():
        done = subprocess.run(
            command, shell=True, cwd=folder, env={**os.environ, "PATH": path},
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        pattern = ".*?".join(re.escape(part) for part in shown.split("…"))
        assert re.fullmatch(pattern, done.stdout, flags=re.DOTALL), (command, done.stdout)
