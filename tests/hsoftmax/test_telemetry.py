"""ONNX Runtime's official builds report to their maker; in a process of ours, they do not.

A build that reports keeps a device identifier and a store of events in the user's cache folder, so
each process here has a home folder of its own, which is empty at first. ONNX Runtime does not
report where it finds the variables of a build server (`CI` and others), so only a few variables
reach these processes.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from tests.scoring.conftest import make_rows, write
from tests.service.processes import Process

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from hsoftmax.cli import main; main()"]
EXPORT = """
import pathlib, sys
from hsoftmax import exporter
from tests.scoring.conftest import LABELS, make_model
to = exporter.parse_destination(pathlib.Path(sys.argv[1]))
exporter.export_model(make_model(), to, labels=LABELS)
"""
ORT_VERSION = tuple(map(int, onnxruntime.__version__.split(".")[:2]))
BARE = "import onnxruntime; onnxruntime.get_available_providers()"


KEPT_VARIABLES = {"PATH", "LANG", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE"}


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty home for the processes of a test, whose environment says nothing of telemetry."""
    home = tmp_path / "home"
    home.mkdir()
    for name in set(os.environ) - KEPT_VARIABLES:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    for kind in ("CACHE", "CONFIG", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(home / kind.lower()))
    return home


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """Exported in a process of its own: this one may have chosen a device for the service."""
    repository = tmp_path_factory.mktemp("telemetry")
    command = [sys.executable, "-c", EXPORT, repository / "words" / "1"]
    subprocess.run(command, check=True, cwd=ROOT)
    return repository


def kept_by_onnxruntime(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if "onnxruntime" in path.name.lower()]


def score(repository: Path, folder: Path, *options: str) -> None:
    rows = write(folder / "in.ndjson", make_rows(20))
    arguments = [repository / "words", rows, folder / "out.ndjson", "--task", "target_log_prob"]
    subprocess.run([*COMMAND, "score", *arguments, *options], check=True)


@pytest.mark.skipif(
    ORT_VERSION < (1, 29), reason="ONNX Runtime reports to its maker since version 1.29"
)
def test_onnxruntime_alone_keeps_files(home):
    """If it does not, this build does not report, and the tests below cannot fail."""
    subprocess.run([sys.executable, "-c", BARE], check=True)
    assert kept_by_onnxruntime(home)


def test_the_environment_of_the_caller_cannot_turn_it_on(home, monkeypatch):
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    subprocess.run([sys.executable, "-c", f"import hsoftmax; {BARE}"], check=True)
    assert not kept_by_onnxruntime(home)


@pytest.mark.parametrize("workers", [1, 2])
def test_serve_keeps_none(home, repository, workers):
    server = Process(repository, workers=workers)
    try:
        for _ in range(workers - 1):
            server.until("loaded")
        assert server.get("/healthz/ready")[0] == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=20) == 0
    finally:
        server.end()
    assert not kept_by_onnxruntime(home)


def test_score_keeps_none(home, repository, tmp_path):
    score(repository, tmp_path)
    assert not kept_by_onnxruntime(home)


def test_verify_keeps_none(home, repository):
    subprocess.run([*COMMAND, "verify", repository / "words" / "1"], check=True)
    assert not kept_by_onnxruntime(home)


def test_demo_keeps_none(home, tmp_path):
    """It exports, verifies, serves and asks."""
    arguments = ["demo", "--check", "--repository", tmp_path / "demo"]
    subprocess.run([*COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL)
    assert not kept_by_onnxruntime(home)


@pytest.mark.ray
def test_an_actor_on_ray_keeps_none(home, repository, tmp_path):
    score(repository, tmp_path, "--engine", "ray")
    assert not kept_by_onnxruntime(home)
