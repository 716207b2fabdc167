"""The environments of the compatibility run: a virtual environment for each, and its packages."""

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from .bounds import false_bounds, lowest_versions

ROOT = Path(__file__).parents[2]
PYPROJECT = ROOT / "pyproject.toml"
FOLDER = ROOT / "build" / "compat"
LOCK = ROOT / "requirements" / "dev.txt"

Packages = Literal["locked", "lowest", "newest"]


class FailedStep(Exception):
    """An environment could not be made."""


@dataclass(frozen=True)
class Environment:
    """A Python version with one set of packages."""

    name: str
    python: str
    packages: Packages

    @property
    def folder(self) -> Path:
        return FOLDER / self.name


def all_environments(versions: tuple[str, ...]) -> list[Environment]:
    """Return the environments: each version with the locked packages, the first with others too."""
    return [
        *(Environment(version, version, "locked") for version in versions),
        Environment("lowest", versions[0], "lowest"),
        Environment("newest", versions[0], "newest"),
    ]


def install(environment: Environment, interpreter: Path) -> None:
    """Make the virtual environment, unless it is there with the same packages.

    Raises:
        FailedStep: the packages cannot be resolved or installed, or a lower bound is false.
    """
    requirements = _requirements(environment, interpreter)
    stamp = environment.folder / "installed"
    if stamp.exists() and stamp.read_text() == requirements.read_text():
        return
    _run([interpreter, "-m", "venv", "--clear", environment.folder])
    pip = [environment.folder / "bin" / "pip", "--quiet", "--disable-pip-version-check", "install"]
    _run([*pip, "--requirement", requirements])
    _run([*pip, "--no-deps", "--no-build-isolation", "--editable", ROOT])
    stamp.write_text(requirements.read_text())


def _requirements(environment: Environment, interpreter: Path) -> Path:
    """Return the file with the versions of all packages of an environment."""
    if environment.packages == "locked":
        return LOCK  # pip compares its hashes
    output = FOLDER / f"{environment.name}.txt"
    output.unlink(missing_ok=True)  # the resolver would prefer the versions in it
    resolution = "lowest-direct" if environment.packages == "lowest" else "highest"
    _run(
        [
            *(_uv(), "pip", "compile", "--quiet", "--no-header", "--no-annotate"),
            *("--no-emit-index-url", "--resolution", resolution, "--extra", "dev"),
            *("--python", interpreter, PYPROJECT, "--output-file", output),
        ]
    )
    if environment.packages == "lowest":
        errors = false_bounds(lowest_versions(PYPROJECT, "dev"), output.read_text())
        if errors:
            raise FailedStep("\n".join(errors))
    return output


@cache
def _uv() -> Path:
    """Return the resolver, which has a virtual environment of its own."""
    folder = FOLDER / "uv"
    if not (folder / "bin" / "uv").exists():
        venv.create(folder, clear=True, with_pip=True)
        _run([folder / "bin" / "pip", "--quiet", "--disable-pip-version-check", "install", "uv"])
    return folder / "bin" / "uv"


def run_tests(environment: Environment, arguments: list[str]) -> Path:
    """Run the default tests in an environment. Return the path of the report, which may be absent.

    The modules come from the environment, also if the caller sets PYTHONPATH.
    """
    report = FOLDER / f"{environment.name}.xml"
    report.unlink(missing_ok=True)
    command = [environment.folder / "bin" / "pytest", "--quiet", f"--junit-xml={report}"]
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([*command, *arguments], cwd=ROOT, env=variables, check=False)
    return report


def _run(command: list[Path | str]) -> None:
    ran = subprocess.run(command, cwd=ROOT, check=False, stdout=sys.stderr)
    if ran.returncode != 0:
        program = Path(command[0]).name
        raise FailedStep(f"{program} ended with exit code {ran.returncode}, see its output above")
