"""Start-up: help and completion need click alone, and work with the smallest install."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import CompletionItem, ShellComplete

from hsoftmax import commands, exporter
from hsoftmax.cli import hsoftmax, run
from hsoftmax.exporter.choices import AUTO, SOURCE_NAMES
from hsoftmax.missing_packages import PACKAGES, missing
from hsoftmax.scoring.choices import TASK_NAMES

ROOT = Path(__file__).parents[2]
COMMANDS = sorted(commands.SHORT_HELP)
HELPS = [[], ["--help"], *([name, "--help"] for name in COMMANDS)]

# `pip install .` installs these, each with what it needs itself.
SMALLEST = {
    "hsoftmax", "annotated_types", "click", "markdown_it", "mdurl", "numpy", "pydantic",
    "pydantic_core", "pygments", "rich", "typing_extensions", "typing_inspection",
}  # fmt: skip
FOR_SERVE = {
    "annotated_types", "pydantic", "pydantic_core", "typing_extensions", "typing_inspection",
}  # fmt: skip

ONLY_SMALLEST = """
class OnlySmallest:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in smallest and not is_standard(top):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, OnlySmallest())
"""
PROGRAM = """
import json, sys
smallest, arguments = map(json.loads, sys.argv[1:])
before = set(sys.modules)

def is_standard(top):
    return top in sys.stdlib_module_names or top.startswith("_sysconfigdata")

{hook}
from hsoftmax.cli import run
code = run(arguments)
tops = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(json.dumps([top for top in tops if not is_standard(top)]))
sys.exit(code)
"""


def run_fresh(arguments: list[str], *, hook: str = "") -> subprocess.CompletedProcess[str]:
    """The command in a new process; the last line it prints is what it imported, as JSON."""
    program = PROGRAM.format(hook=hook)
    told = [json.dumps(sorted(SMALLEST)), json.dumps(arguments)]
    return subprocess.run(
        [sys.executable, "-c", program, *told], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("arguments", HELPS, ids=" ".join)
def test_help_needs_only_the_smallest_install(arguments):
    done = run_fresh(arguments, hook=ONLY_SMALLEST)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: hsoftmax")


@pytest.mark.parametrize("arguments", HELPS, ids=" ".join)
def test_help_imports_no_library_but_click(arguments):
    done = run_fresh(arguments)
    imported = set(json.loads(done.stdout.splitlines()[-1]))
    assert {"click", "hsoftmax"} <= imported
    assert imported - {"click", "hsoftmax"} <= (FOR_SERVE if arguments[:1] == ["serve"] else set())


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["export", __file__, "--to", "{tmp}/words"], "export"),
        (["verify", "{made}/1"], "export"),
        (["demo", "--repository", "{tmp}"], "service"),
        (["serve", "{tmp}", "--port", "0"], "service"),
        (["bench", "{made}"], "service"),
    ],
)
def test_work_in_the_smallest_install_names_the_extra(made, tmp_path, arguments, extra):
    filled = [a.format(made=made, tmp=tmp_path) for a in arguments]
    done = run_fresh(filled, hook=ONLY_SMALLEST)
    assert done.returncode == 1
    assert f"pip install '.[{extra}]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_inspect_works_in_the_smallest_install(made):
    done = run_fresh(["inspect", str(made)], hook=ONLY_SMALLEST)
    assert done.returncode == 0, done.stderr
    assert "HierarchicalSoftmax" in done.stdout


def test_a_wrong_call_is_refused_before_a_library_is_missed():
    done = run_fresh(["serve", "--port", "none", "/nowhere"], hook=ONLY_SMALLEST)
    assert done.returncode == 2
    assert "port: " in done.stderr


@pytest.mark.parametrize("module", ["torch", "onnx.checker", "of_no_extra"])
def test_a_missing_module_is_named_by_its_package(module):
    extra = {"torch": "pytorch", "onnx.checker": "export"}.get(module, "export,service")
    assert missing(module).endswith(f"pip install '.[{extra}]'")
    assert f"needs the package {module.partition('.')[0]}," in missing(module)


def packages_of(extra: str) -> Iterator[str]:
    """The packages that an extra of pyproject.toml asks for, by the names they are imported by."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in extras["optional-dependencies"][extra]:
        name, _, others = re.match(r"([\w-]+)(\[([\w,-]+)\])?", requirement).groups()
        if name == "hsoftmax":
            for other in others.split(","):
                yield from packages_of(other)
        else:
            yield name.replace("-", "_")


@pytest.mark.parametrize("extra", PACKAGES)
def test_an_extra_brings_the_packages_that_it_is_named_for(extra):
    brought_by_fastapi = {"starlette"}
    assert set(PACKAGES[extra]) - brought_by_fastapi <= set(packages_of(extra))
    named = {package for packages in PACKAGES.values() for package in packages}
    assert set(packages_of(extra)) <= named


def test_the_table_of_commands_is_that_of_their_modules():
    modules = Path(commands.__file__).parent.glob("*.py")
    assert [path.stem for path in sorted(modules)] == ["__init__", *COMMANDS]
    for name, short_help in commands.SHORT_HELP.items():
        command = hsoftmax.get_command(click.Context(hsoftmax), name)
        assert command.name == name
        assert command.get_short_help_str(limit=1_000) == short_help


def test_the_command_alone_prints_its_help(capsys):
    assert run([]) == 0
    alone = capsys.readouterr().out
    assert run(["--help"]) == 0
    assert alone == capsys.readouterr().out
    for name, short_help in commands.SHORT_HELP.items():
        assert f"{name} {short_help}" in " ".join(alone.split())


def test_the_names_of_sources_are_those_of_the_registry():
    assert tuple(exporter.SOURCES) == SOURCE_NAMES


@pytest.mark.parametrize("package", ["models", "exporter", "scoring", "service"])
def test_a_package_has_its_public_names_and_no_others(package):
    program = (
        f"import hsoftmax.{package} as package, hsoftmax.{package}.public as public\n"
        "assert all(getattr(package, name) is getattr(public, name) for name in public.__all__)\n"
        "try:\n    package.nonesuch\n"
        "except AttributeError as error:\n    assert 'nonesuch' in str(error)\n"
        "else:\n    raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize(
    "module", ["models.families", "exporter.export", "scoring.job.runner", "service.server.serve"]
)
def test_a_module_can_be_the_first_that_is_imported_of_its_package(module):
    program = f"import hsoftmax.{module}"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_key_is_not_shown_where_the_repository_is_missing(monkeypatch, capsys):
    monkeypatch.setenv("HSOFTMAX_API_KEYS", "s3cret")
    assert run(["serve"]) == 2
    said = capsys.readouterr().err
    assert "repository: Field required, got none" in said
    assert "s3cret" not in said


def complete(*arguments: str) -> list[CompletionItem]:
    """Return the completions that a shell offers for the last argument."""
    shell = ShellComplete(hsoftmax, {}, "hsoftmax", "_HSOFTMAX_COMPLETE")
    return shell.get_completions(list(arguments[:-1]), arguments[-1])


@pytest.mark.parametrize(
    ("arguments", "offered"),
    [
        ([""], COMMANDS),
        (["ve"], ["verify"]),
        (["--v"], ["--version"]),
        (["serve", "--tls"], ["--tls-certfile", "--tls-keyfile"]),
        (["serve", "--no-w"], ["--no-watch"]),
        (["export", "w.npz", "--prec"], ["--precision"]),
        (["export", "--from", ""], [AUTO, *SOURCE_NAMES]),
        (["export", "--from", "the"], ["theano", "theanolm"]),
        (["export", "--precision", ""], ["fp32", "fp16", "bf16", "int8"]),
        (["export", "--padding", ""], ["mask", "theano"]),
        (["score", "b", "i", "o", "--task", ""], list(TASK_NAMES)),
        (["score", "b", "i", "o", "--oov", "e"], ["error", "exclude"]),
        (["serve", "--device", ""], ["auto", "cpu", "cuda"]),
        (["serve", "--device", "cu"], ["cuda"]),
        (["bench", "b", "--device", ""], ["auto", "cpu", "cuda"]),
    ],
)
def test_completion_offers_commands_options_and_values(arguments, offered):
    assert [item.value for item in complete(*arguments)] == offered


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", ""],
        ["export", "w.npz", "--to", "rep"],
        ["export", "w.npz", "--labels", ""],
        ["inspect", ""],
        ["verify", "rep"],
        ["bench", ""],
        ["demo", "--repository", ""],
        ["serve", ""],
        ["serve", "--state", ""],
        ["serve", "--tls-certfile", ""],
        ["score", ""],
        ["score", "b", "in"],
        ["score", "b", "i", "out"],
    ],
)
def test_completion_leaves_paths_to_the_shell(arguments):
    (item,) = complete(*arguments)
    assert item.type == "file"
    assert item.value == arguments[-1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_that_operations_shows_is_there(shell):
    variable = f"_HSOFTMAX_COMPLETE={shell}_source"
    assert f"{variable} hsoftmax" in (ROOT / "docs/operations.md").read_text()
    name, value = variable.split("=")
    done = subprocess.run(
        [sys.executable, "-m", "hsoftmax"],
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert f"_HSOFTMAX_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("Client", "httpx2", "client"), ("AsyncClient", "httpx2", "client"),
     ("load", "onnxruntime|orjson|msgspec", "service")],
)  # fmt: skip
def test_a_name_of_the_library_names_the_extra_that_it_misses(name, package, extra):
    program = f"""
import json, sys
smallest = json.loads(sys.argv[1])
def is_standard(top):
    return top in sys.stdlib_module_names or top.startswith("_sysconfigdata")
{ONLY_SMALLEST}
import hsoftmax
hsoftmax.{name}
"""
    told = json.dumps(sorted(SMALLEST))
    done = subprocess.run(
        [sys.executable, "-c", program, told], capture_output=True, text=True, timeout=60
    )
    last = done.stderr.splitlines()[-1]
    assert re.fullmatch(
        rf"ModuleNotFoundError: hsoftmax\.{name} needs the package ({package}), which is not "
        rf"installed: pip install '\.\[{extra}\]'",
        last,
    ), last


def test_the_library_has_its_public_names_and_no_others():
    program = (
        "import sys, hsoftmax\n"
        "assert not {'numpy', 'httpx2'} & set(sys.modules)\n"
        "assert all(getattr(hsoftmax, name).__name__ == name for name in hsoftmax.__all__)\n"
        "try:\n    hsoftmax.nonesuch\n"
        "except AttributeError as error:\n    assert 'nonesuch' in str(error)\n"
        "else:\n    raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
