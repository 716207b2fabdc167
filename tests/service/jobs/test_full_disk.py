"""On a full disk everything that frees room works, and everything else says that there is none."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hsoftmax.service.errors import StorageFull
from hsoftmax.service.jobs import job_thread
from hsoftmax.service.jobs.database import Connection
from hsoftmax.service.jobs.reserve import Reserve
from hsoftmax.service.jobs.sqlite_database import SqliteDatabase
from tests.service.conftest import error_of
from tests.service.small_disk import fill, small_disk

from .conftest import JobsClient, eventually, make_rows, ndjson, serving_jobs


@pytest.fixture(scope="module", autouse=True)
def database_kind() -> None:
    """These tests are about the file of SQLite alone."""


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 3 * 2**20) as folder:
        yield folder


@contextmanager
def jobs_on(disk: Path, repository: Path, **settings) -> Iterator[JobsClient]:
    with serving_jobs(repository, disk / "state", **settings) as jobs:
        yield jobs


def code(response) -> tuple[int, str]:
    return response.status_code, error_of(response.json())[1]


def test_what_frees_room_works_and_what_needs_room_is_507(repository, disk, valve):
    valve.passing = 0
    with jobs_on(disk, repository) as jobs:
        running, waiting = jobs.start(make_rows(20)), jobs.start(make_rows(20))
        spare = jobs.upload(ndjson(make_rows(5)))["id"]
        jobs.until(running["id"], "in_progress")
        fill(disk)
        upload = jobs.http.post(
            "/v1/files",
            files={"file": ("a.ndjson", ndjson(make_rows(500)))},
            data={"purpose": "batch"},
        )
        assert code(upload) == (507, "storage_full")
        query = {"input_file_id": spare, "endpoint": "/v1/models/words/score"}
        fill(disk)
        assert code(jobs.http.post("/v1/batches", json=query)) == (507, "storage_full")
        assert jobs.cancel(waiting["id"])["status"] == "cancelled"
        fill(disk)
        assert jobs.cancel(running["id"])["status"] == "cancelling"
        assert jobs.until(running["id"])["status"] == "cancelled"
        fill(disk)
        for id in (spare, running["input_file_id"], waiting["input_file_id"]):
            assert jobs.http.delete(f"/v1/files/{id}").json()["deleted"]
            fill(disk)
        for batch in (running, waiting):
            assert jobs.http.delete(f"/v1/batches/{batch['id']}").json()["deleted"]
        assert jobs.http.get("/v1/files").json()["data"] == []
        assert jobs.http.get("/v1/batches").json()["data"] == []
        (disk / "others").unlink()
        valve.open()
        assert jobs.run(make_rows(20))["status"] == "completed"


@pytest.mark.parametrize("output", ["ndjson", "parquet", "arrow", "csv", "npy"])
@pytest.mark.parametrize("shard_rows", [100, 2000])
def test_a_job_that_fills_the_disk_says_so_and_can_be_deleted(repository, disk, output, shard_rows):
    with jobs_on(disk, repository, job_shard_rows=shard_rows) as jobs:
        file = jobs.upload(ndjson(make_rows(4_000)))["id"]
        fill(disk, leave=150_000)
        batch = jobs.until(
            jobs.create(input_file_id=file, task="log_probs", output_format=output)["id"]
        )
        assert batch["status"] == "failed", batch
        (error,) = batch["errors"]["data"]
        assert error["code"] == "disk_full"
        assert error["message"] == "disk: expected room for what is scored, got none"
        assert jobs.http.delete(f"/v1/files/{batch['input_file_id']}").status_code == 200
        assert jobs.http.delete(f"/v1/batches/{batch['id']}").status_code == 200
        assert list((disk / "state" / "jobs").iterdir()) == []
        assert jobs.run(make_rows(20))["status"] == "completed"


def test_finished_rows_are_published_when_an_input_is_deleted(repository, disk, monkeypatch):
    monkeypatch.setattr(job_thread, "_SWEEP_INTERVAL_S", 0.2)
    with jobs_on(disk, repository, job_shard_rows=500) as jobs:
        batch = jobs.run(make_rows(6_000), task="log_probs")
        assert batch["errors"]["data"][0]["code"] == "disk_full"
        jobs.http.delete(f"/v1/files/{batch['input_file_id']}")
        eventually(lambda: jobs.batch(batch["id"])["output_file_id"])
        batch = jobs.batch(batch["id"])
        assert len(jobs.records(batch)) == batch["request_counts"]["completed"] > 0


def test_a_service_that_starts_on_a_full_disk_frees_room(repository, disk, valve):
    valve.passing = 0
    with jobs_on(disk, repository) as jobs:
        running, waiting = jobs.start(make_rows(20)), jobs.start(make_rows(20))
        jobs.until(running["id"], "in_progress")
    others = fill(disk)
    with jobs_on(disk, repository) as jobs:
        assert jobs.cancel(waiting["id"])["status"] == "cancelled"
        assert jobs.cancel(running["id"])["status"] in ("cancelling", "failed")
        jobs.until(running["id"])
        assert jobs.http.delete(f"/v1/files/{running['input_file_id']}").status_code == 200
        others.unlink()
        valve.open()
        assert jobs.run(make_rows(20))["status"] == "completed"
        assert eventually(lambda: (disk / "state" / "reserve").stat().st_size == 2**19)


def test_files_are_deleted_even_when_the_reserve_is_gone(repository, disk, valve):
    valve.passing = 0
    with jobs_on(disk, repository) as jobs:
        file = jobs.upload(ndjson(make_rows(500)))
        job = jobs.start(make_rows(500))
        jobs.cancel(job["id"])
        jobs.until(job["id"])
        (disk / "state" / "reserve").unlink()
        fill(disk)
        assert jobs.http.delete(f"/v1/files/{file['id']}").status_code == 200
        (disk / "state" / "reserve").unlink(missing_ok=True)
        fill(disk)
        assert jobs.http.delete(f"/v1/files/{job['input_file_id']}").status_code == 200
        assert jobs.http.delete(f"/v1/batches/{job['id']}").status_code == 200


def test_a_disk_that_was_always_full_costs_the_routes_of_jobs_alone(repository, disk):
    fill(disk)
    with jobs_on(disk, repository) as jobs:
        assert code(jobs.http.get("/v1/batches")) == (507, "storage_full")
        query = {"inputs": [[0.5] * 8], "targets": [1]}
        response = jobs.http.post("/v1/models/words/probabilities", json=query)
        assert response.status_code == 200
        (disk / "others").unlink()
        assert jobs.http.get("/v1/batches").status_code == 200


class FullConnection(sqlite3.Connection):
    """Connection whose commits fail while the reserve has more than so many bytes."""

    reserve: Path
    fails_above = 0

    def execute(self, statement, *values):
        if statement == "COMMIT" and self.reserve.stat().st_size > self.fails_above:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return super().execute(statement, *values)


@pytest.fixture
def full(tmp_path) -> Iterator[SqliteDatabase]:
    """Database whose connection stands for a full disk, on any disk and for any user."""
    database = SqliteDatabase(tmp_path / "jobs.sqlite")
    database._db.close()
    database._db = sqlite3.connect(
        tmp_path / "jobs.sqlite", factory=FullConnection, isolation_level=None,
        check_same_thread=False,
    )  # fmt: skip
    database._db.reserve = tmp_path / "reserve"
    yield database
    database.close()


def insert(db: Connection) -> int:
    return db.execute("INSERT INTO files (id) VALUES ('a')").rowcount


def test_a_change_that_frees_room_uses_the_reserve_part_by_part(full, tmp_path):
    full._db.fails_above = 2**18
    with pytest.raises(StorageFull), full.transaction() as db:
        insert(db)
    assert full.rows("SELECT * FROM files") == []
    assert (tmp_path / "reserve").stat().st_size == 2**19
    assert full.change_with_reserve(insert) == 1
    assert full.rows("SELECT id FROM files") == [("a",)]
    assert (tmp_path / "reserve").stat().st_size == 2**18
    full.fill_reserve()
    assert (tmp_path / "reserve").stat().st_size == 2**19
    full._db.fails_above = -1
    with pytest.raises(StorageFull, match="state: expected room for it on the disk, got none"):
        full.change_with_reserve(lambda db: db.execute("DELETE FROM files"))
    assert full.rows("SELECT id FROM files") == [("a",)]


def test_other_errors_of_the_database_do_not_touch_the_reserve(tmp_path):
    database = SqliteDatabase(tmp_path / "jobs.sqlite")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        database.change_with_reserve(lambda db: db.execute("DELETE FROM missing"))
    assert (tmp_path / "reserve").stat().st_size == 2**19
    assert database.change_with_reserve(insert) == 1
    database.close()


def test_a_reserve_takes_real_blocks_and_gives_them_back(tmp_path):
    reserve = Reserve(tmp_path / "reserve")
    assert not reserve.release()
    reserve.fill()
    assert os.stat(tmp_path / "reserve").st_blocks * 512 >= 2**19
    assert [reserve.release() for _ in range(5)] == [True] * 4 + [False]
    assert os.stat(tmp_path / "reserve").st_blocks == 0
