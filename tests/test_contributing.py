"""CONTRIBUTING.md names paths, commands, names in the code and directions of imports that exist."""

import re
from pathlib import Path

import pytest

from tests.architecture.test_architecture import DIRECTION

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
CODE_SPANS = sorted({" ".join(span.split()) for span in re.findall(r"`([^`\n]+)`", PAGE)})
PATHS = [s for s in CODE_SPANS if re.fullmatch(r"[\w.]+/[\w./]*|\w+\.(md|toml)", s)]
TARGETS = sorted(set(re.findall(r"\bmake ([a-z-]+)", PAGE)))
NEW = "NAME"  # stands for the name of a new file


def is_there(path: str) -> bool:
    """True if the path exists, or, for a new file, if its folder and a file like it exist."""
    return any(ROOT.glob(path.replace(NEW, "*").rstrip("/")))


def test_the_page_names_paths_and_commands():
    assert len(PATHS) >= 40
    assert {"install", "check", "test", "demo"} <= set(TARGETS)


@pytest.mark.parametrize("path", PATHS)
def test_every_path_exists(path):
    assert is_there(path)


def test_a_path_that_does_not_exist_is_found():
    assert not is_there("exporter/sources/registrar.py")
    assert not is_there(f"exporter/origins/{NEW}.py")


@pytest.mark.parametrize("target", TARGETS)
def test_every_command_exists(target):
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_every_mark_has_its_command():
    shown = re.findall(r"^\| `make test-([a-z]+)` \| `([a-z]+)`", PAGE, flags=re.MULTILINE)
    marks = re.findall(r'^    "([a-z]+): ', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert sorted(shown) == sorted((mark, mark) for mark in marks)


def test_every_name_in_the_code_is_in_a_file_that_the_page_names():
    files = [ROOT / path for path in PATHS if path.endswith(".py") and NEW not in path]
    code = "\n".join(file.read_text("utf-8") for file in files)
    names = {s for s in CODE_SPANS if re.fullmatch(r"_?[A-Z]\w{2,}", s) and s != NEW}
    assert {"SOURCES", "FAMILIES", "OPERATIONS", "EXTENSIONS"} <= names
    assert [name for name in names if not re.search(rf"\b{name}\b", code)] == []


def test_the_table_of_packages_is_the_direction_of_imports():
    shown = {}
    for package, imports in re.findall(r"^\| `(\w+)/` \|[^|]*\| ([^|]*) \|$", PAGE, re.MULTILINE):
        named = set(re.findall(r"`(\w+)`", imports))
        shown[package] = DIRECTION.keys() - {package} if imports == "all of them" else named
    assert shown == DIRECTION
