"""The end of a job: all rows or no output, nothing done twice, and counts that only grow."""

import json
from dataclasses import replace

import pytest

from hsoftmax.scoring import (
    Columns,
    ScoringError,
    Task,
    build_job_spec,
    finalize_partial,
    find_format,
    open_inputs,
    run_job,
    run_job_with,
    workspace_path,
)
from hsoftmax.scoring.job import finalize, runner
from tests.scoring.conftest import make_rows, write

ROWS, FLAWED = 23, (3, 4, 11, 20)


class Stopped(BaseException):
    """Simulates the end of the process."""


@pytest.fixture
def spec(tmp_path, bundle_info):
    rows = make_rows(ROWS)
    for i in FLAWED:
        rows[i]["target"] = 99
    files, output = (write(tmp_path / "in.ndjson", rows),), tmp_path / "out.ndjson"
    reader = open_inputs(files, Columns(), bundle_info)
    yield build_job_spec(
        reader, output, find_format(output), bundle_info, Task("target_log_prob"),
        columns=Columns(), batch=2, shard_rows=6,
    )  # fmt: skip
    reader.close()


@pytest.fixture
def score(reference):
    """Return a function that runs a job and returns its summary."""

    def score(spec, *, resume=False, progress=lambda *_: None, **options):
        return run_job(spec, reference, resume=resume, threads=1, progress=progress, **options)

    return score


@pytest.mark.parametrize("claimed", [ROWS - 1, ROWS + 2])
def test_an_input_with_another_number_of_rows_than_it_says_has_no_output(spec, score, claimed):
    claiming = replace(spec, reader=replace(spec.reader, total=claimed))
    with pytest.raises(ScoringError, match=f"input: expected {claimed} rows, got {ROWS}"):
        score(claiming)
    assert not spec.output.exists()
    assert score(replace(spec, reader=replace(spec.reader, total=ROWS)), resume=True)


def test_failed_rows_are_counted_as_they_come(spec, score):
    seen = []
    score(spec, progress=lambda *counts: seen.append(counts))
    assert all(failed == sum(i < rows for i in FLAWED) for rows, failed, _ in seen)
    assert seen[-1][:2] == (ROWS, len(FLAWED))
    assert any(0 < failed < len(FLAWED) for _, failed, _ in seen)


def test_failed_rows_of_earlier_runs_are_counted_too(spec, score):
    def stop_after_two(rows, failed, fraction):
        if rows > 14:
            raise Stopped

    with pytest.raises(Stopped):
        score(spec, progress=stop_after_two)
    seen = []
    score(spec, resume=True, progress=lambda *counts: seen.append(counts[:2]))
    assert seen[0] == (12, 3)
    assert all(failed == sum(i < rows for i in FLAWED) for rows, failed in seen)


def test_an_assembled_output_is_published_without_doing_anything_again(spec, score, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(runner, "publish", _stop)
        with pytest.raises(Stopped):
            score(spec)
    assert not spec.output.exists()
    summary = run_job_with(spec, _produce_nothing, resume=True, progress=_stop, on_all_scored=_stop)
    assert summary["rows_in"] == ROWS
    assert len(spec.output.read_text().splitlines()) == ROWS
    assert not workspace_path(spec.output).exists()


def test_a_published_output_is_kept_by_a_later_end_of_the_job(spec, score, monkeypatch):
    """The process stops while the workspace is removed: its shards may be gone already."""
    with monkeypatch.context() as patch:
        patch.setattr(finalize, "remove_workspace", _stop)
        with pytest.raises(Stopped):
            score(spec)
    content = spec.output.read_bytes()
    for shard in workspace_path(spec.output).glob("shard*"):
        shard.unlink()
    summary = finalize_partial(spec.output_spec)
    assert summary is not None
    assert summary["rows_in"] == ROWS
    assert spec.output.read_bytes() == content


def test_an_output_beside_a_workspace_without_its_checkpoint_is_told_whole(spec, score):
    """Removing the workspace was stopped half-way, after the output was published."""
    wanted = score(spec)
    workspace_path(spec.output).mkdir()
    assert finalize_partial(spec.output_spec) == wanted
    summary = spec.output.with_name("out.ndjson.summary.json")
    assert json.loads(summary.read_text()) == wanted
    spec.output.write_bytes(spec.output.read_bytes()[:-1])
    assert finalize_partial(spec.output_spec) is None


def _stop(*_: object) -> None:
    raise Stopped


def _produce_nothing(*_: object):
    raise Stopped
    yield
