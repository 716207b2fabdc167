"""State folders of other schemas: jobs of an older one are kept, a newer one is an error."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hsoftmax.service.jobs.batch_queries import list_batches
from hsoftmax.service.jobs.migrations import SQLITE
from hsoftmax.service.jobs.sqlite_database import SqliteDatabase
from tests.data import SCHEMA_1, copy_of, read_json

from .conftest import JobsClient, serving_jobs

IDS = read_json("state.json")
SCORE = "/v1/models/hierarchical/score"
FOREVER = 1e9  # retention in seconds: the jobs and files of the test data are old
ADDED = ["ALTER TABLE batches ADD COLUMN tenant TEXT", "CREATE INDEX by_tenant ON batches (tenant)"]


@pytest.fixture(scope="module", autouse=True)
def database_kind() -> None:
    """These tests are about the file of SQLite alone."""


@pytest.fixture
def state(exported, tmp_path) -> Path:
    """Copy of a state folder of schema 1.

    It depends on `exported`: once a service has run, this process can export no bundle.
    """
    return copy_of("state", tmp_path / "state")


def serving_state(state: Path):
    return serving_jobs(SCHEMA_1 / "repository", state, job_retention=FOREVER)


def stored_bytes(job: str, name: str) -> bytes:
    return (SCHEMA_1 / "state" / "jobs" / job / name).read_bytes()


def batches_by_id(jobs: JobsClient) -> dict[str, dict]:
    return {batch["id"]: batch for batch in jobs.http.get("/v1/batches").json()["data"]}


def expect_close(got: bytes, wanted: bytes) -> None:
    """Assert equal records, with a tolerance for log-probs that another machine computed."""
    for one, other in zip(got.splitlines(), wanted.splitlines(), strict=True):
        one, other = json.loads(one), json.loads(other)
        assert one.pop("log_prob") == pytest.approx(other.pop("log_prob"), abs=1e-5)
        assert one == other


def test_an_ended_job_keeps_its_files(state):
    with serving_state(state) as jobs:
        ended = batches_by_id(jobs)[IDS["ended"]]
        assert ended["status"] == "completed"
        assert ended["request_counts"] == {"total": 37, "completed": 35, "failed": 2}
        for field, name in [
            ("output_file_id", "output.ndjson"),
            ("error_file_id", "output.ndjson.errors.ndjson"),
            ("sequences_file_id", "output.ndjson.sequences.ndjson"),
        ]:
            assert jobs.content(ended[field]) == stored_bytes(IDS["ended"], name)


def test_an_unfinished_job_is_resumed_with_its_shards(state):
    with serving_state(state) as jobs:
        resumed = jobs.until(IDS["half_done"])
        assert resumed["status"] == "completed"
        repeated = jobs.create(input_file_id=IDS["uploaded"], endpoint=SCORE, task="perplexity")
        reference = jobs.until(repeated["id"])
        shards = [f"output.ndjson.parts/shard-{number:08}" for number in (0, 1)]
        before = b"".join(stored_bytes(IDS["half_done"], shard) for shard in shards)
        whole = jobs.content(reference["output_file_id"])
        rest = whole.splitlines(keepends=True)[before.count(b"\n") :]
        got = jobs.content(resumed["output_file_id"])
        assert got == before + b"".join(rest)
        assert jobs.content(resumed["error_file_id"]) == jobs.content(reference["error_file_id"])
        expect_close(got, whole)
        expect_close(got, stored_bytes(IDS["ended"], "output.ndjson"))


def test_a_later_schema_keeps_the_jobs_and_its_columns(state):
    path = state / "jobs.sqlite"
    database = SqliteDatabase(path, [*SQLITE, ADDED])
    try:
        listed, more = list_batches(database, 10, None)
        assert ([batch.id for batch in listed], more) == ([IDS["half_done"], IDS["ended"]], False)
        assert (
            database.rows("SELECT version, tenant FROM batches, schema_version")
            == [(len(SQLITE) + 1, None)] * 2
        )
    finally:
        database.close()


def test_a_state_of_a_newer_schema_is_one_clear_error(state):
    SqliteDatabase(state / "jobs.sqlite", [*SQLITE, ADDED]).close()
    known = len(SQLITE)
    sentence = (
        f"jobs.sqlite: expected schema version <= {known}, got {known + 1}: "
        "a newer hsoftmax wrote this"
    )
    with serving_state(state) as jobs:
        response = jobs.http.get("/v1/batches")
        assert response.status_code == 503
        assert sentence in response.text
    with closing(sqlite3.connect(state / "jobs.sqlite")) as db:
        statuses = db.execute("SELECT status FROM batches ORDER BY number").fetchall()
    assert statuses == [("completed",), ("in_progress",)]
