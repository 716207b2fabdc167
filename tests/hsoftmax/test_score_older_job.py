"""A job that was stopped before schemas had numbers is finished by `--resume`."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hsoftmax.cli import run
from tests.data import SCHEMA_1, copy_of

BUNDLE = SCHEMA_1 / "repository" / "hierarchical"
OPTIONS = ["--task", "perplexity", "--batch", "5", "--shard-rows", "10", "--threads", "1"]


@pytest.fixture
def job(tmp_path) -> Path:
    return copy_of("score", tmp_path / "score")


def score(job: Path, output: str, *options: str) -> int:
    return run(
        ["score", str(BUNDLE), str(job / "in.ndjson"), str(job / output), *OPTIONS, *options]
    )


def records(content: bytes) -> list[dict]:
    return [json.loads(line) for line in content.splitlines()]


def summary(output: Path) -> dict:
    return json.loads(output.with_name(output.name + ".summary.json").read_text())


def test_the_half_done_job_is_resumed_to_the_same_bytes(job):
    shards = [(job / "out.ndjson.parts" / f"shard-{i:08}").read_bytes() for i in (0, 1)]
    before = b"".join(shards)
    assert score(job, "out.ndjson", "--resume") == 0
    assert score(job, "undisturbed.ndjson") == 0
    got, whole = (job / "out.ndjson").read_bytes(), (job / "undisturbed.ndjson").read_bytes()
    assert got == before + b"".join(whole.splitlines(keepends=True)[20:])
    for one, other in zip(records(got), records(whole), strict=True):
        assert one.pop("log_prob", 0.0) == pytest.approx(other.pop("log_prob", 0.0), abs=1e-5)
        assert one == other
    assert not (job / "out.ndjson.parts").exists()


def test_its_sums_go_into_the_summary(job):
    assert score(job, "out.ndjson", "--resume") == 0
    assert score(job, "undisturbed.ndjson") == 0
    got, wanted = summary(job / "out.ndjson"), summary(job / "undisturbed.ndjson")
    assert (got["rows_in"], got["scored"], got["failed"]) == (37, 35, 2)
    assert got["job"] == wanted["job"]
    assert got["corpus"]["perplexity"] == pytest.approx(wanted["corpus"]["perplexity"], rel=1e-5)
    assert got["corpus"]["words"] == wanted["corpus"]["words"]


def test_a_job_of_a_newer_schema_is_refused_in_one_line(job, capsys):
    ledger = job / "out.ndjson.parts" / "ledger.sqlite"
    with closing(sqlite3.connect(ledger)) as db:
        db.execute("CREATE TABLE schema_version (version INTEGER NOT NULL)")
        db.execute("INSERT INTO schema_version VALUES (7)")
        db.commit()
    assert score(job, "out.ndjson", "--resume") == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{ledger}: expected schema version <= 2, got 7: a newer hsoftmax wrote this" in said
    assert (job / "out.ndjson.parts" / "shard-00000001").exists()
