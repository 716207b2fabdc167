"""A job that is stopped at any instant and resumed loses no row and repeats none."""

import hashlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from hsoftmax import exporter
from hsoftmax.cli import run
from hsoftmax.scoring import CallError
from hsoftmax.scoring.job.workspace import lock_workspace
from tests.scoring.conftest import FORMATS, HIDDEN, LABELS, TARGETS, make_model, make_rows, write

from .conftest import write_flawed

SMALL = ["--batch", "4", "--shard-rows", "10", "--threads", "1"]


@pytest.fixture
def rows(tmp_path) -> Path:
    rows = make_rows(37)
    rows[13]["input"][0] = None
    rows[21]["target"] = TARGETS
    return write(tmp_path / "in.ndjson", rows)


def call(made, source, output, *options, task="perplexity") -> list[str]:
    return ["score", str(made), str(source), str(output), "--task", task, *options]


def contents(output: Path) -> dict[str, str]:
    """Returns the hash of every file of a job, by the suffix that its name adds to the output's."""
    files = [path for path in output.parent.glob(output.name + "*") if path.is_file()]
    return {
        str(path).removeprefix(str(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (*files, *output.glob("*"))
    }


class Stopped(BaseException):
    """Simulates the end of the process."""


class DiskSteps:
    """Counts the operations on the disk, and stops the process before or after one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps = 0
        self.stop_at: float = float("inf")
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no power fails in here
        for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink"), (shutil, "rmtree")):
            monkeypatch.setattr(owner, name, self.counted(getattr(owner, name)))

    def counted(self, original):
        def counted(*args, **kwargs):
            self.count()
            result = original(*args, **kwargs)
            self.count()
            return result

        return counted

    def count(self) -> None:
        self.steps += 1
        if self.steps > self.stop_at:
            raise Stopped


@pytest.mark.parametrize("to", ["ndjson", "parquet", ""])
def test_a_job_stopped_at_a_step_and_resumed_has_the_same_output(
    made, rows, tmp_path, monkeypatch, to
):
    stop_and_resume(made, rows, tmp_path, monkeypatch, to, every=6)


@pytest.mark.slow
@pytest.mark.parametrize("to", [*FORMATS, ""])
def test_a_job_stopped_at_any_step_and_resumed_has_the_same_output(
    made, rows, tmp_path, monkeypatch, to
):
    stop_and_resume(made, rows, tmp_path, monkeypatch, to, every=1)


def stop_and_resume(made, rows, folder, monkeypatch, to: str, every: int) -> None:
    disk = DiskSteps(monkeypatch)
    uninterrupted = folder / f"undisturbed.{to}".rstrip(".")  # without an extension, a folder
    assert run(call(made, rows, uninterrupted, *SMALL)) == 0
    expected, steps = contents(uninterrupted), disk.steps
    assert steps > 20
    assert ".parts" not in expected
    for step in range(0, steps, every):
        output = folder / f"out{step}.{to}".rstrip(".")
        disk.steps, disk.stop_at = 0, step
        with pytest.raises(Stopped):
            run(call(made, rows, output, *SMALL))
        disk.stop_at = float("inf")
        assert run(call(made, rows, output, *SMALL, "--resume")) == 0, step
        assert contents(output) == expected, step


def test_there_is_no_output_before_the_end(made, rows, tmp_path, monkeypatch):
    disk = DiskSteps(monkeypatch)
    disk.stop_at = 12
    with pytest.raises(Stopped):
        run(call(made, rows, tmp_path / "out.ndjson", *SMALL))
    assert not (tmp_path / "out.ndjson").exists()


# --- kill -9 ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_job(made, tmp_path_factory) -> tuple[Path, Path]:
    """An input of about a second, with some invalid rows, and its uninterrupted output."""
    folder = tmp_path_factory.mktemp("long")
    source, expected = write_flawed(folder / "in.ndjson", 8_000), folder / "wanted.ndjson"
    assert run(call(made, source, expected, *LONG)) == 0
    return source, expected


LONG = ["--batch", "50", "--shard-rows", "200"]


def kill_and_resume(made, long_job, output: Path, kills: int, seed: int) -> int:
    """Kills a job many times, then lets it end. Returns the number of kills that hit it running."""
    source, expected = long_job
    rng, hits = random.Random(seed), 0
    program = "import sys; from hsoftmax.cli import main; main()"
    arguments = [sys.executable, "-c", program, *call(made, source, output, *LONG, "--resume")]
    for _ in range(kills):
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        _wait_for_work(process, output)
        time.sleep(rng.random() * 0.4)
        process.kill()
        hits += process.wait() == -9
        process.stderr.close()
        if output.exists() and not output.with_name(output.name + ".parts").exists():
            assert contents(output) == contents(expected)
            output.unlink()  # it was done: begin anew
    assert run(call(made, source, output, *LONG, "--resume")) == 0
    assert contents(output) == contents(expected)
    return hits


def _wait_for_work(process: subprocess.Popen, output: Path) -> None:
    """Waits until the process has written to the workspace, or has ended."""
    parts = output.with_name(output.name + ".parts")
    before = _last_change(parts)
    while process.poll() is None and _last_change(parts) == before:
        time.sleep(0.005)


def _last_change(parts: Path) -> float:
    try:
        return max(path.stat().st_mtime_ns for path in parts.iterdir())
    except (OSError, ValueError):
        return 0.0


def test_a_killed_and_resumed_job_has_the_same_output(made, long_job, tmp_path):
    assert kill_and_resume(made, long_job, tmp_path / "out.ndjson", kills=4, seed=1) > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_job_killed_a_hundred_times_has_the_same_output(made, long_job, tmp_path):
    hits = sum(
        kill_and_resume(made, long_job, tmp_path / f"out{i}.ndjson", kills=10, seed=i)
        for i in range(10)
    )
    assert hits > 50


# --- what may not be resumed --------------------------------------------------------------------


def stop(made, rows, output: Path, monkeypatch, *options: str) -> Path:
    """Starts a job and stops it half-way."""
    with monkeypatch.context() as patched:
        DiskSteps(patched).stop_at = 14
        with pytest.raises(Stopped):
            run(call(made, rows, output, *SMALL, *options))
    return output


@pytest.fixture
def stopped(made, rows, tmp_path, monkeypatch) -> Path:
    """The output path of a job that was stopped half-way."""
    return stop(made, rows, tmp_path / "out.ndjson", monkeypatch)


def shards_of(output: Path) -> int:
    checkpoint = output.with_name(output.name + ".parts") / "ledger.sqlite"
    with closing(sqlite3.connect(checkpoint)) as ledger:
        return ledger.execute("SELECT count(*) FROM shards").fetchone()[0]


def one_line(capsys) -> str:
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_changed_input_is_refused(made, rows, stopped, capsys):
    assert shards_of(stopped) > 0
    before = rows.stat()
    rows.write_bytes(rows.read_bytes().replace(b'"id": 1,', b'"id": 9,'))
    assert rows.stat().st_size == before.st_size
    assert run(call(made, rows, stopped, *SMALL, "--resume")) == 2
    assert "expected the input that the job began with, got in.ndjson changed" in one_line(capsys)
    assert shards_of(stopped) > 0


def test_a_changed_bundle_is_refused(made, rows, stopped, tmp_path, capsys):
    other = tmp_path / "repository" / "words"
    exporter.export_model(make_model(2), exporter.parse_destination(other / "1"), labels=LABELS)
    assert run(call(other, rows, stopped, *SMALL, "--resume")) == 2
    assert "expected the bundle that the job began with" in one_line(capsys)


@pytest.mark.parametrize(
    "option",
    [["--log-base", "2"], ["--batch", "5"], ["--oov", "exclude"], ["--task", "target_log_prob"]],
)
def test_changed_options_are_refused(made, rows, stopped, capsys, option):
    assert run(call(made, rows, stopped, *SMALL, *option, "--resume")) == 2
    assert f"expected {option[0][2:].replace('-', '_')} " in one_line(capsys)


@pytest.mark.parametrize(
    ("begun", "resumed", "message"),
    [
        ("on", "off", "expected native kernels (--native on), as the job began, got ONNX Runtime"),
        ("off", "on", "expected ONNX Runtime (--native off), as the job began, got native kernels"),
    ],
)
def test_other_kernels_are_refused(
    made, rows, tmp_path, monkeypatch, capsys, begun, resumed, message
):
    output = stop(made, rows, tmp_path / "out.ndjson", monkeypatch, "--native", begun)
    capsys.readouterr()
    assert run(call(made, rows, output, *SMALL, "--resume", "--native", resumed)) == 2
    assert message in one_line(capsys)
    assert run(call(made, rows, output, *SMALL, "--resume", "--native", begun)) == 0
    assert run(call(made, rows, output, *SMALL, "--resume", "--native", resumed)) == 2


@pytest.mark.parametrize("begun", ["on", "off"])
def test_by_default_a_job_is_resumed_with_the_kernels_that_it_began_with(
    made, rows, tmp_path, monkeypatch, begun
):
    undisturbed = tmp_path / "undisturbed.ndjson"
    assert run(call(made, rows, undisturbed, *SMALL, "--native", begun)) == 0
    output = stop(made, rows, tmp_path / "out.ndjson", monkeypatch, "--native", begun)
    for _ in range(2):  # the second time it is finished
        assert run(call(made, rows, output, *SMALL, "--resume")) == 0
        assert contents(output) == contents(undisturbed)
    summary = json.loads(output.with_name("out.ndjson.summary.json").read_text())
    assert summary["job"]["native"] == (begun == "on")


def test_a_task_without_a_kernel_is_resumed_with_either_choice(made, rows, tmp_path, monkeypatch):
    output = tmp_path / "out.ndjson"
    task = ["--task", "log_probs"]
    stop(made, rows, output, monkeypatch, *task, "--native", "on")
    assert run(call(made, rows, output, *SMALL, *task, "--resume", "--native", "off")) == 0


def test_a_machine_without_kernels_refuses_a_job_that_began_with_them(
    made, rows, stopped, capsys, without_kernels
):
    assert run(call(made, rows, stopped, *SMALL, "--resume")) == 2
    assert "expected native kernels (--native on), as the job began" in one_line(capsys)
    assert shards_of(stopped) > 0


def test_without_resume_a_job_starts_afresh(made, rows, stopped):
    assert run(call(made, rows, stopped, *SMALL, "--log-base", "2")) == 0


def test_resume_without_a_job_starts_afresh(made, rows, tmp_path):
    assert run(call(made, rows, tmp_path / "out.ndjson", "--resume")) == 0


def test_a_finished_job_is_not_run_again(made, rows, tmp_path, monkeypatch):
    output = tmp_path / "out.ndjson"
    assert run(call(made, rows, output)) == 0
    monkeypatch.setattr("hsoftmax.runners.local.LocalGraphRunner.__call__", None)
    assert run(call(made, rows, output, "--resume")) == 0


def test_a_job_killed_while_it_cleaned_up_is_not_run_again(made, rows, tmp_path, monkeypatch):
    output = tmp_path / "out.ndjson"
    assert run(call(made, rows, output)) == 0
    with lock_workspace(output) as workspace:
        (workspace.path / "ledger.sqlite-wal").write_bytes(b"of a ledger that is gone")
    monkeypatch.setattr("hsoftmax.runners.local.LocalGraphRunner.__call__", None)
    assert run(call(made, rows, output, "--resume")) == 0
    assert not workspace.path.exists()


def test_an_existing_output_is_not_overwritten(made, rows, tmp_path, capsys):
    output = tmp_path / "out.ndjson"
    output.write_text("mine")
    assert run(call(made, rows, output)) == 2
    assert "expected no such file, got one" in one_line(capsys)
    assert output.read_text() == "mine"


def test_a_corrupt_shard_is_detected_and_made_again(made, rows, stopped, capsys):
    shard = stopped.with_name("out.ndjson.parts") / "shard-00000000"
    shard.write_bytes(shard.read_bytes().replace(b"id", b"di"))
    assert run(call(made, rows, stopped, *SMALL, "--resume")) == 1
    assert "the disk changed it" in one_line(capsys)
    assert run(call(made, rows, stopped, *SMALL, "--resume")) == 0
    assert b"di" not in stopped.read_bytes()


def test_a_missing_shard_is_made_again(made, rows, stopped):
    (stopped.with_name("out.ndjson.parts") / "shard-00000000").unlink()
    assert run(call(made, rows, stopped, *SMALL, "--resume")) == 0
    assert len(stopped.read_bytes().splitlines()) == 37


def test_a_broken_checkpoint_is_a_one_line_error(made, rows, stopped, capsys):
    for path in stopped.with_name("out.ndjson.parts").glob("ledger.sqlite*"):
        path.write_bytes(b"no ledger " * 1000)
    assert run(call(made, rows, stopped, *SMALL, "--resume")) == 1
    assert "expected a checkpoint database, got" in one_line(capsys)
    assert run(call(made, rows, stopped, *SMALL)) == 0


def test_two_runs_do_not_share_an_output(made, rows, tmp_path, capsys):
    with lock_workspace(tmp_path / "out.ndjson"):
        assert run(call(made, rows, tmp_path / "out.ndjson")) == 2
    assert "expected no other run at it" in one_line(capsys)
    with pytest.raises(CallError), lock_workspace(tmp_path / "b"), lock_workspace(tmp_path / "b"):
        pass


def test_an_input_that_changes_during_the_job_gives_no_output(
    made, rows, tmp_path, monkeypatch, capsys
):
    from hsoftmax.scoring.job import ordered_map

    original = ordered_map.ordered_map

    def changing_input(*args, **kwargs):
        yield from original(*args, **kwargs)
        os.utime(rows, (1, 1))

    monkeypatch.setattr("hsoftmax.scoring.job.runner.ordered_map", changing_input)
    assert run(call(made, rows, tmp_path / "out.ndjson")) == 1
    assert "got a change while it was read" in one_line(capsys)
    assert not (tmp_path / "out.ndjson").exists()


def test_a_full_disk_is_an_error_that_keeps_finished_shards(
    made, rows, tmp_path, monkeypatch, capsys
):
    original, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 4:
            raise OSError(28, "No space left on device")
        original(descriptor)

    output = tmp_path / "out.ndjson"
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert run(call(made, rows, output, *SMALL)) == 1
    assert "No space left on device" in one_line(capsys)
    assert shards_of(output) > 0
    assert run(call(made, rows, output, *SMALL, "--resume")) == 0


# --- memory -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("to", ["parquet", "ndjson"])
def test_a_million_rows_take_less_than_a_gigabyte(tmp_path, to):
    rng = np.random.default_rng(0)
    rows = np.zeros(1_000_000, [("id", "i8"), ("input", "f4", HIDDEN), ("target", "i8")])
    rows["input"] = rng.normal(size=(len(rows), HIDDEN))
    rows["target"] = rng.integers(0, TARGETS, len(rows))
    np.save(tmp_path / "in.npy", rows)
    made = tmp_path / "words"
    exporter.export_model(make_model(), exporter.parse_destination(made / "1"), labels=LABELS)
    program = (
        "import resource, sys; from hsoftmax.cli import run; code = run(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
    )
    arguments = call(made, tmp_path / "in.npy", tmp_path / f"out.{to}")
    process = subprocess.run(
        [sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True
    )
    assert int(process.stdout.splitlines()[-1]) < 1_000_000
