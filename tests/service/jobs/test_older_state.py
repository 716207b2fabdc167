"""A state folder from before schemas had numbers: its jobs are listed, its half-done one ends."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hsoftmax.service.jobs.batch_store import list_batches
from hsoftmax.service.jobs.database import MIGRATIONS, Database
from tests.data import SCHEMA_1, copy_of, read_json

from .conftest import Client, serving_jobs

IDS = read_json("state.json")
SCORE = "/v1/models/hierarchical/score"
FOREVER = 1e9  # seconds that jobs and files are kept, which were made some time ago
ADDED = ["ALTER TABLE batches ADD COLUMN tenant TEXT", "CREATE INDEX by_tenant ON batches (tenant)"]


@pytest.fixture
def state(exported, tmp_path) -> Path:
    """After all exports of other tests, as a process that has served opens no session for one."""
    return copy_of("state", tmp_path / "state")


def serving_state(state: Path):
    return serving_jobs(SCHEMA_1 / "repository", state, job_retention=FOREVER)


def stored(job: str, name: str) -> bytes:
    return (SCHEMA_1 / "state" / "jobs" / job / name).read_bytes()


def batches(jobs: Client) -> dict[str, dict]:
    return {batch["id"]: batch for batch in jobs.http.get("/v1/batches").json()["data"]}


def expect_close(got: bytes, wanted: bytes) -> None:
    """The same records, but for the last digits: those of another machine may differ."""
    for one, other in zip(got.splitlines(), wanted.splitlines(), strict=True):
        one, other = json.loads(one), json.loads(other)
        assert one.pop("log_prob") == pytest.approx(other.pop("log_prob"), abs=1e-5)
        assert one == other


def test_the_job_that_had_ended_is_there_with_its_files(state):
    with serving_state(state) as jobs:
        ended = batches(jobs)[IDS["ended"]]
        assert ended["status"] == "completed"
        assert ended["request_counts"] == {"total": 37, "completed": 35, "failed": 2}
        for field, name in [
            ("output_file_id", "output.ndjson"),
            ("error_file_id", "output.ndjson.errors.ndjson"),
            ("sequences_file_id", "output.ndjson.sequences.ndjson"),
        ]:
            assert jobs.content(ended[field]) == stored(IDS["ended"], name)


def test_the_half_done_job_ends_with_the_shards_that_it_had(state):
    with serving_state(state) as jobs:
        half = jobs.until(IDS["half_done"])
        assert half["status"] == "completed"
        anew = jobs.create(input_file_id=IDS["uploaded"], endpoint=SCORE, task="perplexity")
        undisturbed = jobs.until(anew["id"])
        shards = [f"output.ndjson.parts/shard-{number:08}" for number in (0, 1)]
        before = b"".join(stored(IDS["half_done"], shard) for shard in shards)
        whole = jobs.content(undisturbed["output_file_id"])
        rest = whole.splitlines(keepends=True)[before.count(b"\n") :]
        got = jobs.content(half["output_file_id"])
        assert got == before + b"".join(rest)
        assert jobs.content(half["error_file_id"]) == jobs.content(undisturbed["error_file_id"])
        expect_close(got, whole)
        expect_close(got, stored(IDS["ended"], "output.ndjson"))


def test_a_later_schema_keeps_the_jobs_and_its_columns(state):
    path = state / "jobs.sqlite"
    database = Database(path, [*MIGRATIONS, ADDED])
    try:
        found, more = list_batches(database, 10, None)
        assert ([batch.id for batch in found], more) == ([IDS["half_done"], IDS["ended"]], False)
        assert (
            database.rows("SELECT version, tenant FROM batches, schema_version") == [(2, None)] * 2
        )
    finally:
        database.close()


def test_a_state_of_a_newer_schema_is_one_clear_error(state):
    Database(state / "jobs.sqlite", [*MIGRATIONS, ADDED]).close()
    said = "jobs.sqlite: expected schema version <= 1, got 2: a newer hsoftmax wrote this"
    with serving_state(state) as jobs:
        answer = jobs.http.get("/v1/batches")
        assert answer.status_code == 503
        assert said in answer.text
    with closing(sqlite3.connect(state / "jobs.sqlite")) as db:
        statuses = db.execute("SELECT status FROM batches ORDER BY number").fetchall()
    assert statuses == [("completed",), ("in_progress",)]
