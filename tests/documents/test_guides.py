"""Carries out every step of the guides, and compares what it prints with the page.

A program that needs PyTorch runs in the tests with the mark `torch`; without it the file that the
program saves is written here, and the other steps are the same.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hsoftmax.cli import hsoftmax as command_line
from hsoftmax.commands import SHORT_HELP
from hsoftmax.service.api import openapi, openapi_examples, operations
from hsoftmax.service.errors import error_codes, status_of_code
from hsoftmax.service.settings import Settings
from tests.architecture.test_architecture import DIRECTION

from . import example_files
from .blocks import Command, languages, steps
from .reader import Reader

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "guides"
PAGES = sorted(GUIDES.glob("*.md"))
FILES: dict[str, Callable[[Path], dict[str, Any] | None]] = {
    "change": lambda folder: None,
    "fasttext": example_files.fasttext_files,
    "gensim": example_files.gensim_files,
    "operate": example_files.operate_files,
    "pytorch": example_files.pytorch_files,
    "taxonomy": example_files.taxonomy_files,
    "theano": example_files.theano_files,
    "understand": lambda folder: None,
}


@pytest.fixture
def reader(tmp_path, monkeypatch) -> Iterator[Reader]:
    reader = Reader(tmp_path, monkeypatch)
    yield reader
    reader.close()


def follow(reader: Reader, guide: str, needs: Callable[[str], bool] = lambda code: True) -> None:
    """Follow all steps of a guide, except the programs that `needs` is false for."""
    reader.names.update(FILES[guide](reader.folder) or {})
    for step in steps(GUIDES / f"{guide}.md"):
        if isinstance(step, Command) or needs(step.code):
            reader.follow(step)


def test_every_guide_is_followed():
    assert [page.stem for page in PAGES] == sorted(FILES)
    for page in PAGES:
        assert any(isinstance(step, Command) for step in steps(page)), page.name


@pytest.mark.parametrize("guide", sorted(FILES.keys() - {"pytorch", "change"}))
def test_every_step_prints_what_the_guide_shows(reader, guide):
    follow(reader, guide)


def test_every_step_without_pytorch_prints_what_the_guide_shows(reader):
    follow(reader, "pytorch", lambda code: "torch" not in code and "log_prob" not in code)


@pytest.mark.torch
def test_every_step_with_pytorch_prints_what_the_guide_shows(reader):
    pytest.importorskip("torch")
    follow(reader, "pytorch")


def test_the_new_source_and_operation_work(reader, monkeypatch):
    for step in steps(GUIDES / "change.md"):
        if isinstance(step, Command) and step.line.startswith("hsoftmax serve"):
            added = (*operations.OPERATIONS, reader.names["TOP_CLUSTER"])
            for module in (openapi, openapi_examples, operations):
                monkeypatch.setattr(module, "OPERATIONS", added)
        reader.follow(step)


def test_the_guides_show_no_command_that_no_test_runs():
    """Only `sh` blocks are not run; the tests below compare each of them with the repository."""
    for page in PAGES:
        assert set(languages(page)) <= {"console", "python", "text", "sh", ""}, page.name
        shown = [block for block in sh_blocks(page) if block != INSTALL]
        assert page.stem in ("change", "operate") or not shown, page.name


def test_every_guide_for_a_format_begins_with_the_installation_of_the_readme():
    assert INSTALL in (ROOT / "README.md").read_text("utf-8")
    for guide in ("fasttext", "gensim", "pytorch", "taxonomy", "theano"):
        assert sh_blocks(GUIDES / f"{guide}.md") == [INSTALL]


def test_an_answer_takes_at_most_three_commands():
    for guide in ("fasttext", "gensim", "pytorch", "taxonomy", "theano"):
        lines = [step.line for step in steps(GUIDES / f"{guide}.md") if isinstance(step, Command)]
        assert [line.split()[:2] for line in lines[:2]] == [
            ["hsoftmax", "export"],
            ["hsoftmax", "serve"],
        ]
        assert lines[2].startswith("curl ")


def test_the_commands_of_docker_fit_the_dockerfile():
    build, run = sh_blocks(GUIDES / "operate.md")[0].splitlines()
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    assert build == "docker build -t hsoftmax ."
    assert run.split()[-1] == build.split()[3]
    ports = re.findall(r"-p (\d+):(\d+)", run)
    assert ports == [("8000", re.search(r"EXPOSE (\d+)", dockerfile)[1])]
    volumes = {inside: outside for outside, inside in re.findall(r"-v (\S+?):(/\w+)", run)}
    assert f"HSOFTMAX_REPOSITORY={next(iter(volumes))}" in dockerfile
    assert 'VOLUME ["/state"]' in dockerfile
    assert volumes.keys() == {"/models", "/state"}


def test_the_variants_of_the_image_that_the_guide_names_exist():
    text = (GUIDES / "operate.md").read_text("utf-8")
    variants = re.findall(r"`(?:--build-arg )?VARIANT=(\w+)`", text)
    assert {"cuda", "full"} <= set(variants)
    assert set(re.findall(r"--build-arg (\w+)=", text)) == {"VARIANT"}
    for variant in variants:
        assert (ROOT / "requirements" / f"{variant}.txt").is_file(), variant


def test_the_commands_of_kubernetes_fit_the_manifest():
    create, apply = sh_blocks(GUIDES / "operate.md")[1].splitlines()
    overlay = ROOT / apply.split()[-1]
    assert (overlay / "kustomization.yaml").exists()
    files = sorted(overlay.parents[1].rglob("*.yaml"))
    manifest = "".join(file.read_text("utf-8") for file in files)
    assert f"secretName: {create.split()[4]}" in manifest
    for key in re.findall(r"--from-\w+=(\w+)=", create):
        assert f"key: {key}" in manifest
    for claim in re.findall(r"volume claim `([\w-]+)`", (GUIDES / "operate.md").read_text()):
        assert f"claimName: {claim}," in manifest


def test_every_option_and_setting_that_a_guide_names_exists():
    options = {"--help", *(option for name in SHORT_HELP for option in flags(name))}
    for page in PAGES:
        text = page.read_text("utf-8")
        named = set(re.findall(r"`(?:hsoftmax \w+ )?(--[a-z][a-z-]+)", text))
        assert named - {"--build-arg", "--adaptive-softmax-cutoff", "--json"} <= options, page.name
        variables = {name.lower() for name in re.findall(r"HSOFTMAX_([A-Z_]+)", text)}
        assert variables <= Settings.model_fields.keys(), page.name


def test_every_error_code_that_a_guide_names_is_one_of_the_service():
    text = (GUIDES / "operate.md").read_text("utf-8")
    named = re.findall(r"^\| (\d{3}) `(\w+)`", text, flags=re.MULTILINE)
    assert len(named) >= 5
    for status, code in named:
        assert code in error_codes()
        assert status_of_code(code) == int(status), code


def test_the_guide_to_the_code_names_paths_commands_and_imports_that_exist():
    text = (GUIDES / "change.md").read_text("utf-8")
    paths = re.findall(r"`([\w.]+/[\w./]*)`", text)
    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path).exists()] == []
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, flags=re.MULTILINE))
    assert {"install", "check", "test"} <= targets
    assert [one for one in targets if not re.search(rf"^{one}:", makefile, re.MULTILINE)] == []
    for package, imports in re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \|$", text, re.MULTILINE):
        named = set(re.findall(r"`(\w+)`", imports))
        expected = DIRECTION[package]
        assert imports == "all of them" if package == "hsoftmax" else named == expected, package


def sh_blocks(page: Path) -> list[str]:
    return re.findall(r"```sh\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL)


def flags(command: str) -> list[str]:
    """Return the options of a command, with both forms of a switch."""
    options = command_line.get_command(None, command).params
    return [flag for option in options for flag in (*option.opts, *option.secondary_opts)]


INSTALL = sh_blocks(ROOT / "README.md")[1]
