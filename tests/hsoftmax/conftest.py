"""A tiny bundle, and a function that runs `hsoftmax score` with it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hsoftmax import exporter, models
from hsoftmax.cli import run
from hsoftmax.runtime.native import library as native_library
from hsoftmax.runtime.native import load_library
from tests.scoring.conftest import LABELS, make_model, make_rows, write

SMALL = ["--batch", "4", "--shard-rows", "10", "--threads", "2"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    to = tmp_path_factory.mktemp("repository") / "words"
    exporter.export_model(make_model(), exporter.parse_destination(to / "1"), labels=LABELS)
    return to


@pytest.fixture
def no_waiting_for_disks(monkeypatch):
    """Makes fsync do nothing; test_score_resume tests durability."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def without_kernels(tmp_path, monkeypatch) -> Iterator[str]:
    """Makes this machine one without native kernels; returns the reason that it gives."""
    with monkeypatch.context() as patched:
        patched.setattr(native_library, "FOLDER", tmp_path)
        load_library.cache_clear()
        yield load_library()
    load_library.cache_clear()


@pytest.fixture
def score(made, tmp_path, capsys, no_waiting_for_disks):
    """Returns a function that scores rows or a file, and returns the output's path.

    Its attribute `said` is the text that the command printed.
    """

    def score(rows, to="ndjson", *options, of="ndjson", task="target_log_prob", expect=0):
        path = rows if isinstance(rows, Path) else write(tmp_path / f"in.{of}", rows)
        output = tmp_path / f"out.{to}"
        arguments = [str(made), str(path), str(output), "--task", task, *SMALL, *options]
        capsys.readouterr()
        code = run(["score", *arguments])
        said = capsys.readouterr()
        assert code == expect, said.err
        assert not expect or (said.err.startswith("hsoftmax: ") and said.err.count("\n") == 1)
        score.said = said.out if not expect else said.err
        return output

    return score


def write_flawed(path: Path, count: int) -> Path:
    """Writes rows as NDJSON, of which every thousandth is invalid."""
    lines = [json.dumps(row) for row in make_rows(count)]
    lines[::1_000] = ["{wrong"] * len(lines[::1_000])
    path.write_text("\n".join(lines))
    return path


def expected(rows) -> np.ndarray:
    states = np.array([row["input"] for row in rows], dtype=np.float32)
    target = np.array([row["target"] for row in rows])
    return models.hierarchical_softmax.target_log_prob(
        make_model(), states, np.arange(len(rows)), target
    )
