"""Jobs under restarts, reloads, lost inputs and bundles, full disks, and interactive load."""

import errno
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from hsoftmax.runtime.sessions import Session
from hsoftmax.scoring.job import workspace
from hsoftmax.service.context import context_of
from hsoftmax.service.engine import Engine, Priority
from hsoftmax.service.jobs import completion, job_thread
from tests.first_example import LABELS, WEIGHTS, read_heldout
from tests.service.conftest import HIDDEN, serving

from .conftest import (
    SCORE,
    JobsClient,
    Json,
    Valve,
    count_shards,
    eventually,
    make_rows,
    ndjson,
    opened_database,
    parts_dir,
    serving_jobs,
    state_settings,
    until_held,
)

URL = "/v1/models/words/probabilities"
QUERY = {"inputs": [[0.5] * HIDDEN], "targets": [1]}


@pytest.fixture
def reference(jobs):
    """Function that returns the output and error file of an undisturbed job over the rows."""

    def done(rows, **query) -> tuple[bytes, bytes]:
        batch = jobs.run(rows, **query)
        assert batch["status"] == "completed"
        return jobs.content(batch["output_file_id"]), jobs.content(batch["error_file_id"])

    return done


@dataclass
class RootedService:
    """A service with an input root, whose jobs read one file in place."""

    repository: Path
    folder: Path
    rows: Path

    def write(self, count: int) -> None:
        self.rows.write_text(ndjson(make_rows(count)))

    def serving(self) -> AbstractContextManager[JobsClient]:
        return serving_jobs(self.repository, self.folder / "state", input_root=self.rows.parent)

    def interrupted(self, valve: Valve) -> Json:
        """Start a job, stop the service in the middle of it, and return the batch."""
        with self.serving() as jobs:
            created = jobs.create(input_path=self.rows.name)
            until_held(jobs, created["id"], valve)
        return created


@pytest.fixture
def service(repository, tmp_path) -> RootedService:
    (tmp_path / "root").mkdir()
    service = RootedService(repository, tmp_path, tmp_path / "root" / "rows.ndjson")
    service.write(100)
    return service


def interrupted(repository: Path, state: Path, valve: Valve) -> Json:
    """Start a job over 100 rows, stop the service in the middle of it, and return the batch."""
    valve.passing = 5
    with serving_jobs(repository, state) as jobs:
        created = jobs.start(make_rows(100))
        until_held(jobs, created["id"], valve)
    return created


def results(jobs: JobsClient, batch) -> tuple[bytes, bytes]:
    return jobs.content(batch["output_file_id"]), jobs.content(batch["error_file_id"])


def rows_with_errors(count: int):
    rows = make_rows(count)
    for i in range(5, count, 40):
        rows[i]["target"] = -1
        rows[i + 3]["custom_id"] = "r1"
    return rows


def test_a_job_continues_after_a_restart(repository, tmp_path, valve, reference):
    rows = rows_with_errors(150)
    wanted = reference(rows)
    valve.passed, valve.passing = 0, 6
    with serving_jobs(repository, tmp_path) as jobs:
        created = jobs.start(rows)
        until_held(jobs, created["id"], valve)
    with opened_database(tmp_path) as database:
        assert database.rows("SELECT status FROM batches") == [("in_progress",)]
    before = valve.passed
    valve.open()
    with serving_jobs(repository, tmp_path) as jobs:
        batch = jobs.until(created["id"])
        assert batch["status"] == "completed"
        assert results(jobs, batch) == wanted
    assert valve.passed - before < 15  # finished shards are not scored again


def test_a_job_continues_with_other_kernels_and_the_log_says_so(repository, tmp_path, valve, capfd):
    created = interrupted(repository, tmp_path, valve)
    valve.open()
    with serving_jobs(repository, tmp_path, native="off") as jobs:
        batch = jobs.until(created["id"])
        assert batch["status"] == "completed"
        assert len(jobs.records(batch)) == 100
    said = [line for line in capfd.readouterr().err.splitlines() if "job_kernels_changed" in line]
    assert len(said) == 1
    assert json.loads(said[0]) | {"batch": created["id"], "native": False} == json.loads(said[0])


def test_interactive_requests_do_not_change_the_bytes_of_a_job(repository, tmp_path, reference):
    """Batched rows may differ in their last bit, so the calls of a job are never batched."""
    rows = rows_with_errors(150)
    for query in ({}, {"task": "log_probs"}, {"task": "top_k", "k": 3}):
        wanted = reference(rows, **query)
        with serving_jobs(repository, tmp_path / str(len(query))) as jobs:
            ended = threading.Event()

            def ask(http=jobs.http, ended=ended) -> None:
                while not ended.is_set():
                    http.post(URL, json={"inputs": QUERY["inputs"] * 99})

            clients = [threading.Thread(target=ask) for _ in range(2)]
            [client.start() for client in clients]
            batch = jobs.run(rows, **query)
            ended.set()
            [client.join() for client in clients]
            assert results(jobs, batch) == wanted


def test_interactive_requests_go_first(repository, tmp_path, monkeypatch):
    """An interactive request waits at most for the one graph run of a job in progress."""
    order: list[str] = []
    submit, run = Engine.submit, Session.run

    def submitted(engine, call):
        order.extend(["asked"] if call.priority is Priority.INTERACTIVE else [])
        return submit(engine, call)

    def ran(session, feeds, options=None):
        order.append("answered" if len(feeds["hidden"]) == 1 else "piece")
        return run(session, feeds, options)

    with serving_jobs(repository, tmp_path) as jobs:
        context_of(jobs.http.app).engine._inline_max_cost = 0  # all calls go through the queue
        monkeypatch.setattr(Engine, "submit", submitted)
        monkeypatch.setattr(Session, "run", ran)
        created = jobs.start(make_rows(600))
        while jobs.batch(created["id"])["status"] != "completed":
            assert jobs.http.post(URL, json=QUERY).status_code == 200
    timeline = "".join({"asked": "?", "answered": "!", "piece": "."}[one] for one in order)
    assert timeline.count(".") == 60
    waits = re.findall(r"\?(\.*)!", timeline)
    assert len(waits) == timeline.count("?") > 3
    assert max(map(len, waits)) <= 1, timeline


def test_a_reload_never_mixes_versions(copy, spare, tmp_path, valve, reference):
    rows = make_rows(120)
    wanted = reference(rows)
    valve.passed, valve.passing = 0, 4
    with serving_jobs(copy, tmp_path / "state", watch=False) as jobs:
        created = jobs.start(rows)
        eventually(lambda: valve.passed > 4)
        shutil.rmtree(copy / "words" / "2")
        spare.rename(copy / "words" / "3")
        context_of(jobs.http.app).repository.load()
        response = jobs.http.post(URL, json=QUERY)
        assert response.json()["version"] == "3"
        valve.open()
        batch = jobs.until(created["id"])
        assert (batch["status"], batch["version"]) == ("completed", "2")
        assert results(jobs, batch) == wanted


def test_a_removed_bundle_fails_the_job_and_keeps_its_finished_rows(copy, tmp_path, valve):
    valve.passing = 4
    with serving_jobs(copy, tmp_path / "state") as jobs:
        created = jobs.start(make_rows(120))
        until_held(jobs, created["id"], valve)
    shutil.rmtree(copy / "words" / "2")
    valve.open()
    with serving_jobs(copy, tmp_path / "state") as jobs:
        batch = jobs.until(created["id"])
        assert batch["status"] == "failed"
        (error,) = batch["errors"]["data"]
        assert (error["code"], error["param"]) == ("bundle_gone", "endpoint")
        assert created["digest"][:12] in error["message"]
        records = jobs.records(batch)
        assert 10 <= len(records) == batch["request_counts"]["completed"] < 120


def test_weights_that_change_in_place_fail_the_job(copy, tmp_path, valve):
    valve.passing = 4
    with serving_jobs(copy, tmp_path / "state", watch=False) as jobs:
        created = jobs.start(make_rows(120))
        until_held(jobs, created["id"], valve)
        os.truncate(copy / "words" / "2" / "weights.bin", 0)
        valve.open()
        batch = jobs.until(created["id"])
        (error,) = batch["errors"]["data"]
        assert (batch["status"], error["code"]) == ("failed", "bundle_gone")
        assert error["message"].startswith("weights: expected them as they were loaded, got")
        assert 10 <= len(jobs.records(batch)) < 120


def test_a_job_continues_on_its_bundle_under_another_version(copy, tmp_path, valve, reference):
    rows = make_rows(60)
    wanted = reference(rows)
    valve.passed, valve.passing = 0, 2
    with serving_jobs(copy, tmp_path / "state") as jobs:
        created = jobs.start(rows)
        eventually(lambda: valve.passed > 2)
    (copy / "words" / "2").rename(copy / "words" / "4")
    valve.open()
    with serving_jobs(copy, tmp_path / "state") as jobs:
        assert results(jobs, jobs.until(created["id"])) == wanted


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_an_input_that_changed_or_is_gone_fails_the_job(service, valve, how):
    valve.passing = 3
    created = service.interrupted(valve)
    if how == "gone":
        service.rows.unlink()
    else:
        service.write(99)
    valve.open()
    with service.serving() as jobs:
        batch = jobs.until(created["id"])
        (error,) = batch["errors"]["data"]
        assert (error["code"], error["param"]) == (f"input_{how}", "input_path")
        assert "/" not in error["message"]
        assert 10 <= len(jobs.records(batch)) < 100


def test_an_input_that_changes_during_the_job_fails_it(service, valve):
    valve.passing = 5
    with service.serving() as jobs:
        created = jobs.create(input_path=service.rows.name)
        eventually(lambda: valve.passed > 5)
        os.utime(service.rows, (1, 1))
        valve.open()
        batch = jobs.until(created["id"])
        assert batch["errors"]["data"][0]["code"] == "input_changed"
        assert len(jobs.records(batch)) == 100


def test_after_a_full_disk_the_finished_rows_are_published_once_there_is_room(
    repository, tmp_path, monkeypatch
):
    original, synced = os.fsync, []

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) > 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(descriptor)

    monkeypatch.setattr(job_thread, "_SWEEP_INTERVAL_S", 0.3)
    with serving_jobs(repository, tmp_path) as jobs:
        with monkeypatch.context() as patched:
            file = jobs.upload(ndjson(make_rows(200)))["id"]
            patched.setattr(workspace, "sync", full)
            created = jobs.create(input_file_id=file)
            batch = jobs.until(created["id"])
            assert batch["status"] == "failed"
            (error,) = batch["errors"]["data"]
            assert error["code"] == "disk_full"
            assert batch["output_file_id"] is None
        eventually(lambda: jobs.batch(created["id"])["output_file_id"])
        batch = jobs.batch(created["id"])
        assert batch["status"] == "failed"
        records = jobs.records(batch)
        assert 10 <= len(records) == batch["request_counts"]["completed"] < 200
        assert [r["custom_id"] for r in records] == [f"r{i}" for i in range(len(records))]


def test_a_recorded_decision_is_final(service, monkeypatch, valve):
    """The job fails to end after its output files were written, before its status was stored."""
    original, calls = completion.finish, []

    def stopped_once(*args, **kwargs):
        calls.append(args)
        if len(calls) == 1:
            raise sqlite3.OperationalError("database or disk is full")
        return original(*args, **kwargs)

    monkeypatch.setattr(completion, "finish", stopped_once)
    monkeypatch.setattr(job_thread, "_RETRY_INTERVAL_S", 0.1)
    valve.passing = 5
    created = service.interrupted(valve)
    moved = service.rows.rename(service.rows.with_name("elsewhere.ndjson"))
    with service.serving() as jobs:
        eventually(lambda: calls)
        moved.rename(service.rows)  # the job could continue now
        valve.open()
        batch = jobs.until(created["id"])
        assert batch["errors"]["data"][0]["code"] == "input_gone"
        assert 10 <= len(jobs.records(batch)) == batch["request_counts"]["completed"] < 100
    assert len(calls) == 2


def test_a_job_fails_after_ten_starts_without_progress(repository, tmp_path, valve):
    """Ten starts are set in the database, as if the process had been killed after each of them."""
    created = interrupted(repository, tmp_path, valve)
    with opened_database(tmp_path) as database, database.transaction() as db:
        assert db.execute("SELECT begun FROM batches").fetchone()[0] == 1
        db.execute("UPDATE batches SET begun = 10, finished = 90")
    valve.open()
    with serving_jobs(repository, tmp_path) as jobs:
        batch = jobs.until(created["id"])
        assert batch["errors"]["data"][0]["code"] == "gave_up"
        assert 10 <= len(jobs.records(batch)) < 100


def test_a_job_with_progress_does_not_fail(repository, tmp_path, valve):
    created = interrupted(repository, tmp_path, valve)
    with opened_database(tmp_path) as database, database.transaction() as db:
        db.execute("UPDATE batches SET begun = 9")
    valve.passing = valve.passed + 2
    with serving_jobs(repository, tmp_path) as jobs:
        with opened_database(tmp_path) as database:
            eventually(lambda: database.rows("SELECT begun FROM batches") == [(1,)])
        valve.open()
        assert jobs.until(created["id"])["status"] == "completed"


def test_a_corrupt_shard_is_scored_again(repository, tmp_path, valve, reference):
    rows = make_rows(60)
    wanted = reference(rows)
    valve.passed, valve.passing = 0, 5
    with serving_jobs(repository, tmp_path) as jobs:
        created = jobs.start(rows)
        shard = parts_dir(jobs, created["id"]) / "shard-00000000"
        eventually(shard.exists)
        eventually(lambda: count_shards(jobs, created["id"]) > 1)
        shard.write_bytes(shard.read_bytes().replace(b"r1", b"r9"))
        valve.open()
        batch = jobs.until(created["id"])
        assert (batch["status"], results(jobs, batch)) == ("completed", wanted)


def test_a_failing_graph_fails_only_its_job(jobs, monkeypatch):
    with monkeypatch.context() as patched:

        def fails(session, feeds, options=None):
            raise RuntimeError("no such kernel")

        patched.setattr(Session, "run", fails)
        batch = jobs.run(make_rows(20))
    assert batch["status"] == "failed"
    (error,) = batch["errors"]["data"]
    assert error["code"] == "inference_failed"
    assert "kernel" not in error["message"]
    assert jobs.run(make_rows(20))["status"] == "completed"


def test_an_unexpected_error_fails_only_its_job(repository, tmp_path, monkeypatch, capfd):
    with serving_jobs(repository, tmp_path) as jobs:
        with monkeypatch.context() as patched:
            patched.setattr("hsoftmax.service.jobs.execution.job_spec_of", lambda *args: 1 / 0)
            batch = jobs.run(make_rows(20))
        assert batch["errors"]["data"][0]["code"] == "internal"
        assert jobs.run(make_rows(20))["status"] == "completed"
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_expired_and_unknown_files_are_removed(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(job_thread, "_SWEEP_INTERVAL_S", 0.2)
    with serving_jobs(repository, tmp_path, job_retention=1.5) as jobs:
        orphan = tmp_path / "files" / "file-lost.csv"
        batch = jobs.run(make_rows(20))
        orphan.write_text("")
        os.utime(orphan, (1, 1))
        (tmp_path / "jobs" / "batch_lost").mkdir()
        assert batch["status"] == "completed"
        eventually(lambda: jobs.http.get(f"/v1/batches/{batch['id']}").status_code == 404)
        eventually(lambda: jobs.http.get("/v1/files").json()["data"] == [])
        eventually(lambda: not list(tmp_path.glob("files/*")) + list(tmp_path.glob("jobs/*")))


def test_an_input_that_a_job_needs_does_not_expire(repository, tmp_path, monkeypatch, valve):
    monkeypatch.setattr(job_thread, "_SWEEP_INTERVAL_S", 0.1)
    valve.passing = 0
    with serving_jobs(repository, tmp_path, job_retention=1.0) as jobs:
        first, second = (jobs.start(make_rows(20)) for _ in range(2))
        time.sleep(2.5)
        valve.open()
        assert jobs.until(first["id"])["status"] == "completed"
        assert jobs.until(second["id"])["status"] == "completed"


def test_one_process_at_a_time_executes_jobs(repository, tmp_path, valve):
    """Two apps use one state. The second takes over when the first stops."""
    rows = make_rows(50)
    with serving_jobs(repository, tmp_path) as first:
        first.run(make_rows(2))
        with serving(repository, **state_settings(tmp_path), job_shard_rows=10) as http:
            second = JobsClient(http, tmp_path)
            valve.passed, valve.passing = 0, 2
            created = second.start(rows)
            eventually(lambda: valve.passed > 2)
            first.http.app.state.context.jobs.stop()
            valve.open()
            batch = second.until(created["id"])
            assert batch["status"] == "completed"
            assert len(second.records(batch)) == 50


def test_several_workers_share_the_jobs(start, tmp_path):
    server = start(**state_settings(tmp_path), workers=2, job_shard_rows=20, threads=1)
    server.until("loaded")  # the second worker, too
    body = (
        b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.ndjson"\r\n\r\n'
        + ndjson(make_rows(200)).encode()
        + b"\r\n--x--\r\n"
    )
    headers = {"content-type": "multipart/form-data; boundary=x"}
    _, file = server.call("POST", "/v1/files", body, headers)
    query = json.dumps({"input_file_id": file["id"], "endpoint": SCORE})
    created: list[str] = []

    def make() -> bool:
        status, batch = server.call("POST", "/v1/batches", query)
        assert status in (200, 503)  # one of the two workers may not have loaded yet
        created.extend([batch["id"]] if status == 200 else [])
        return len(created) == 6

    eventually(make, 30)

    def done() -> bool:
        batches = [server.get(f"/v1/batches/{id}")[1] for id in created]
        return all(batch["status"] == "completed" for batch in batches)

    eventually(done, 30)
    status, listed = server.get("/v1/batches")
    assert (status, len(listed["data"])) == (200, 6)
    assert all(one["request_counts"]["completed"] == 200 for one in listed["data"])
    eventually(lambda: server.read_log().count('"event":"job_ended"') == 6)


def test_the_held_out_perplexity_is_that_of_the_command_line(tmp_path):
    to = tmp_path / "repository" / "addresses"
    source = [str(WEIGHTS), "--labels", str(LABELS)]
    subprocess.run(  # in a subprocess: in this process only services may start threads
        [sys.executable, "-m", "hsoftmax", "export", *source, "--to", str(to)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    labels = LABELS.read_text("utf-8").splitlines()
    rows = [
        {"custom_id": str(i), "input": hidden.tolist(), "target": labels[target],
         "sequence": i // 100}
        for i, (hidden, target) in enumerate(zip(*read_heldout(), strict=True))
    ]  # fmt: skip
    endpoint = "/v1/models/addresses/score"
    with serving_jobs(tmp_path / "repository", tmp_path / "state", job_shard_rows=700) as jobs:
        batch = jobs.run(rows, endpoint=endpoint, task="perplexity")
    corpus = batch["summary"]["corpus"]
    assert f"{corpus['perplexity']:.6g}" == "75.3877"
    assert (corpus["words"], corpus["sequences"]) == (2000, 20)
