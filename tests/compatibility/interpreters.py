"""Finds a Python interpreter of each version that the project promises."""

import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

_CLASSIFIER = "Programming Language :: Python :: "
# A shim of a version manager exists also for a version that is not active, and then fails.
_CHECK = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"


class MissingPython(Exception):
    """Not every promised version has an interpreter that runs."""


def promised_versions(pyproject: Path) -> tuple[str, ...]:
    """Return the versions of Python that the classifiers of the project name."""
    classifiers = tomllib.loads(pyproject.read_text())["project"]["classifiers"]
    return tuple(c.removeprefix(_CLASSIFIER) for c in classifiers if c.startswith(_CLASSIFIER))


def find_interpreters(versions: Iterable[str]) -> dict[str, Path]:
    """Return an interpreter for each version.

    Raises:
        MissingPython: a version has no interpreter that runs.
    """
    found = {version: _find(version) for version in versions}
    missing = [version for version, path in found.items() if path is None]
    if missing:
        raise MissingPython(
            f"expected Python {', '.join(found)}, each with venv and pip, but found none that runs"
            f" for {', '.join(missing)}: put python{missing[0]} on PATH, or install it with pyenv"
        )
    return {version: path for version, path in found.items() if path is not None}


def _find(version: str) -> Path | None:
    return next((path for path in _candidates(version) if _runs(path, version)), None)


def _candidates(version: str) -> Iterator[Path]:
    """Yield the executables of this version on PATH, then those that pyenv has installed."""
    for folder in os.get_exec_path():
        if path := shutil.which(f"python{version}", path=folder):
            yield Path(path)
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"))


def _runs(path: Path, version: str) -> bool:
    try:
        ran = subprocess.run([path, "-c", _CHECK], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ran.returncode == 0 and ran.stdout.strip() == version
