"""Environments of clients of other projects, each with exact versions, under build/clients/.

None of them is on the default install or test path: a test makes the one that it needs.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "clients"
REQUIREMENTS = Path(__file__).parent / "requirements"
PROGRAMS = Path(__file__).parent / "programs"

_APT = "apt-get install"


def python_environment(name: str) -> Path:
    """Return the `bin` of an environment with requirements/<name>.txt, made when they change."""
    wanted = (REQUIREMENTS / f"{name}.txt").read_text()
    folder, installed = FOLDER / name, FOLDER / name / "installed"
    if not (installed.is_file() and installed.read_text() == wanted):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check",
                   "--no-deps", "--requirement", REQUIREMENTS / f"{name}.txt"]  # fmt: skip
        subprocess.run(install, check=True)
        installed.write_text(wanted)
    return folder / "bin"


def node_environment(name: str) -> Path:
    """Return a folder with the packages of requirements/<name>.json, made when they change."""
    wanted = (REQUIREMENTS / f"{name}.json").read_text()
    folder, installed = FOLDER / name, FOLDER / name / "installed"
    if not (installed.is_file() and installed.read_text() == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "package.json").write_text(wanted)
        npm = need("npm", "nodejs npm")
        install = [npm, "install", "--no-audit", "--no-fund", "--no-package-lock"]
        subprocess.run(install, cwd=folder, check=True)
        installed.write_text(wanted)
    return folder


def need(program: str, package: str) -> str:
    """Return the path of a program. A missing one is a failure, not a skip."""
    path = shutil.which(program)
    assert path is not None, f"expected the program {program}, got none: {_APT} {package}"
    return path


def run(*command: str | Path, seconds: float = 240, **options: object) -> str:
    """Run a program of a client; return what it printed. A failure shows the end of that."""
    done = subprocess.run(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=seconds, **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-10_000:]
    return done.stdout
