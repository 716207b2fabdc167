"""Jobs outlive what happens: restarts, reloads, lost inputs and bundles, full disks, busy hours."""

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

from hsoftmax.demo.sample_model import SAMPLE_NAME, find_sample
from hsoftmax.runtime.sessions import Session
from hsoftmax.scoring.job import workspace
from hsoftmax.service.context import context_of
from hsoftmax.service.engine import Engine, Priority
from hsoftmax.service.jobs import completion, job_thread
from tests.service.conftest import HIDDEN, serving

from .conftest import (
    SCORE,
    Client,
    Json,
    Valve,
    eventually,
    make_rows,
    ndjson,
    parts,
    serving_jobs,
    shards,
)

URL = "/v1/models/words/probabilities"
QUERY = {"inputs": [[0.5] * HIDDEN], "targets": [1]}


@pytest.fixture
def undisturbed(jobs):
    """What comes of rows in a job that nothing happens to."""

    def done(rows, **query) -> tuple[bytes, bytes]:
        batch = jobs.done(rows, **query)
        assert batch["status"] == "completed"
        return jobs.content(batch["output_file_id"]), jobs.content(batch["error_file_id"])

    return done


@dataclass
class Rooted:
    """A service whose jobs read a file in place, and may be held while they do."""

    repository: Path
    folder: Path
    rows: Path

    def write(self, count: int) -> None:
        self.rows.write_text(ndjson(make_rows(count)))

    def serving(self) -> AbstractContextManager[Client]:
        return serving_jobs(self.repository, self.folder / "state", input_root=self.rows.parent)

    def stopped(self, valve: Valve) -> Json:
        """A job that began, and whose service was then stopped."""
        with self.serving() as jobs:
            made = jobs.create(input_path=self.rows.name)
            eventually(lambda: valve.passed > valve.passing and shards(jobs, made["id"]))
        return made


@pytest.fixture
def rooted(repository, tmp_path) -> Rooted:
    (tmp_path / "root").mkdir()
    rooted = Rooted(repository, tmp_path, tmp_path / "root" / "rows.ndjson")
    rooted.write(100)
    return rooted


def stopped(repository: Path, state: Path, valve: Valve) -> Json:
    """A job over 100 rows that began, and whose service was then stopped."""
    valve.passing = 5
    with serving_jobs(repository, state) as jobs:
        made = jobs.start(make_rows(100))
        eventually(lambda: valve.passed > valve.passing and shards(jobs, made["id"]))
    return made


def results(jobs: Client, batch) -> tuple[bytes, bytes]:
    return jobs.content(batch["output_file_id"]), jobs.content(batch["error_file_id"])


def rows_with_flaws(count: int):
    rows = make_rows(count)
    for i in range(5, count, 40):
        rows[i]["target"] = -1
        rows[i + 3]["custom_id"] = "r1"
    return rows


def test_a_job_goes_on_after_a_restart(repository, tmp_path, valve, undisturbed):
    rows = rows_with_flaws(150)
    wanted = undisturbed(rows)
    valve.passed, valve.passing = 0, 6
    with serving_jobs(repository, tmp_path) as jobs:
        made = jobs.start(rows)
        eventually(lambda: valve.passed >= 8 and shards(jobs, made["id"]))
    with sqlite3.connect(tmp_path / "jobs.sqlite") as db:
        assert db.execute("SELECT status FROM batches").fetchone() == ("in_progress",)
    before = valve.passed
    valve.open()
    with serving_jobs(repository, tmp_path) as jobs:
        batch = jobs.until(made["id"])
        assert batch["status"] == "completed"
        assert results(jobs, batch) == wanted
    assert valve.passed - before < 15  # what was finished is not done again


def test_interactive_company_changes_no_bit(repository, tmp_path, undisturbed):
    """What shares a batch may differ in its last bit: a job's rows share none."""
    rows = rows_with_flaws(150)
    for query in ({}, {"task": "log_probs"}, {"task": "top_k", "k": 3}):
        wanted = undisturbed(rows, **query)
        with serving_jobs(repository, tmp_path / str(len(query))) as jobs:
            ended = threading.Event()

            def ask(http=jobs.http, ended=ended) -> None:
                while not ended.is_set():
                    http.post(URL, json={"inputs": QUERY["inputs"] * 99})

            clients = [threading.Thread(target=ask) for _ in range(2)]
            [client.start() for client in clients]
            batch = jobs.done(rows, **query)
            ended.set()
            [client.join() for client in clients]
            assert results(jobs, batch) == wanted


def test_interactive_requests_go_first(repository, tmp_path, monkeypatch):
    """Whoever asks while a job runs waits for no more than the piece that is running."""
    order: list[str] = []
    submit, run = Engine.submit, Session.run

    def submitted(engine, call):
        order.extend(["asked"] if call.priority is Priority.INTERACTIVE else [])
        return submit(engine, call)

    def ran(session, feeds, options=None):
        order.append("answered" if len(feeds["hidden"]) == 1 else "piece")
        return run(session, feeds, options)

    with serving_jobs(repository, tmp_path) as jobs:
        context_of(jobs.http.app).engine._inline_max_cost = 0  # nothing goes past the queue
        monkeypatch.setattr(Engine, "submit", submitted)
        monkeypatch.setattr(Session, "run", ran)
        made = jobs.start(make_rows(600))
        while jobs.batch(made["id"])["status"] != "completed":
            assert jobs.http.post(URL, json=QUERY).status_code == 200
    told = "".join({"asked": "?", "answered": "!", "piece": "."}[one] for one in order)
    assert told.count(".") == 60
    waits = re.findall(r"\?(\.*)!", told)
    assert len(waits) == told.count("?") > 3
    assert max(map(len, waits)) <= 1, told


def test_a_reload_never_mixes_versions(copy, spare, tmp_path, valve, undisturbed):
    rows = make_rows(120)
    wanted = undisturbed(rows)
    valve.passed, valve.passing = 0, 4
    with serving_jobs(copy, tmp_path / "state", watch=False) as jobs:
        made = jobs.start(rows)
        eventually(lambda: valve.passed > 4)
        shutil.rmtree(copy / "words" / "2")
        spare.rename(copy / "words" / "3")
        context_of(jobs.http.app).repository.load()
        answer = jobs.http.post(URL, json=QUERY)
        assert answer.json()["version"] == "3"
        valve.open()
        batch = jobs.until(made["id"])
        assert (batch["status"], batch["version"]) == ("completed", "2")
        assert results(jobs, batch) == wanted


def test_a_lost_bundle_is_said_and_what_is_finished_is_kept(copy, tmp_path, valve):
    valve.passing = 4
    with serving_jobs(copy, tmp_path / "state") as jobs:
        made = jobs.start(make_rows(120))
        eventually(lambda: valve.passed > 4 and shards(jobs, made["id"]))
    shutil.rmtree(copy / "words" / "2")
    valve.open()
    with serving_jobs(copy, tmp_path / "state") as jobs:
        batch = jobs.until(made["id"])
        assert batch["status"] == "failed"
        (error,) = batch["errors"]["data"]
        assert (error["code"], error["param"]) == ("bundle_gone", "endpoint")
        assert made["digest"][:12] in error["message"]
        records = jobs.records(batch)
        assert 10 <= len(records) == batch["request_counts"]["completed"] < 120


def test_a_bundle_under_another_number_will_do(copy, tmp_path, valve, undisturbed):
    rows = make_rows(60)
    wanted = undisturbed(rows)
    valve.passed, valve.passing = 0, 2
    with serving_jobs(copy, tmp_path / "state") as jobs:
        made = jobs.start(rows)
        eventually(lambda: valve.passed > 2)
    (copy / "words" / "2").rename(copy / "words" / "4")
    valve.open()
    with serving_jobs(copy, tmp_path / "state") as jobs:
        assert results(jobs, jobs.until(made["id"])) == wanted


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_an_input_that_is_no_longer_what_it_was(rooted, valve, how):
    valve.passing = 3
    made = rooted.stopped(valve)
    if how == "gone":
        rooted.rows.unlink()
    else:
        rooted.write(99)
    valve.open()
    with rooted.serving() as jobs:
        batch = jobs.until(made["id"])
        (error,) = batch["errors"]["data"]
        assert (error["code"], error["param"]) == (f"input_{how}", "input_path")
        assert "/" not in error["message"]
        assert 10 <= len(jobs.records(batch)) < 100


def test_an_input_that_changes_under_its_reader(rooted, valve):
    valve.passing = 5
    with rooted.serving() as jobs:
        made = jobs.create(input_path=rooted.rows.name)
        eventually(lambda: valve.passed > 5)
        os.utime(rooted.rows, (1, 1))
        valve.open()
        batch = jobs.until(made["id"])
        assert batch["errors"]["data"][0]["code"] == "input_changed"
        assert len(jobs.records(batch)) == 100


def test_a_full_disk_is_said_and_what_is_finished_is_given_out_once_there_is_room(
    repository, tmp_path, monkeypatch
):
    really, synced = os.fsync, []

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) > 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        really(descriptor)

    monkeypatch.setattr(job_thread, "_SWEEP", 0.3)
    with serving_jobs(repository, tmp_path) as jobs:
        with monkeypatch.context() as patched:
            file = jobs.upload(ndjson(make_rows(200)))["id"]
            patched.setattr(workspace, "sync", full)
            made = jobs.create(input_file_id=file)
            batch = jobs.until(made["id"])
            assert batch["status"] == "failed"
            (error,) = batch["errors"]["data"]
            assert error["code"] == "disk_full"
            assert batch["output_file_id"] is None
        eventually(lambda: jobs.batch(made["id"])["output_file_id"])
        batch = jobs.batch(made["id"])
        assert batch["status"] == "failed"
        records = jobs.records(batch)
        assert 10 <= len(records) == batch["request_counts"]["completed"] < 200
        assert [r["custom_id"] for r in records] == [f"r{i}" for i in range(len(records))]


def test_an_end_that_was_decided_is_not_taken_back(rooted, monkeypatch, valve):
    """It stops after its shards were given out, and before anybody was told of it."""
    really, tried = completion.end, []

    def stopped_once(*args, **kwargs):
        tried.append(args)
        if len(tried) == 1:
            raise sqlite3.OperationalError("database or disk is full")
        return really(*args, **kwargs)

    monkeypatch.setattr(completion, "end", stopped_once)
    monkeypatch.setattr(job_thread, "_AFTER_FAILURE", 0.1)
    valve.passing = 5
    made = rooted.stopped(valve)
    elsewhere = rooted.rows.rename(rooted.rows.with_name("elsewhere.ndjson"))
    with rooted.serving() as jobs:
        eventually(lambda: tried)
        elsewhere.rename(rooted.rows)  # it could go on now
        valve.open()
        batch = jobs.until(made["id"])
        assert batch["errors"]["data"][0]["code"] == "input_gone"
        assert 10 <= len(jobs.records(batch)) == batch["request_counts"]["completed"] < 100
    assert len(tried) == 2


def test_a_job_at_which_processes_die_is_given_up(repository, tmp_path, valve):
    """As if nine had been killed at it; the tenth is stopped on purpose, which does not count."""
    made = stopped(repository, tmp_path, valve)
    with sqlite3.connect(tmp_path / "jobs.sqlite") as db:
        assert db.execute("SELECT begun FROM batches").fetchone() == (1,)
        db.execute("UPDATE batches SET begun = 10, finished = 90")
    valve.open()
    with serving_jobs(repository, tmp_path) as jobs:
        batch = jobs.until(made["id"])
        assert batch["errors"]["data"][0]["code"] == "gave_up"
        assert 10 <= len(jobs.records(batch)) < 100


def test_a_job_that_gets_on_is_not_given_up(repository, tmp_path, valve):
    made = stopped(repository, tmp_path, valve)
    with sqlite3.connect(tmp_path / "jobs.sqlite") as db:
        db.execute("UPDATE batches SET begun = 9")
    valve.passing = valve.passed + 2
    with serving_jobs(repository, tmp_path) as jobs:
        with sqlite3.connect(tmp_path / "jobs.sqlite") as db:
            eventually(lambda: db.execute("SELECT begun FROM batches").fetchone() == (1,))
        valve.open()
        assert jobs.until(made["id"])["status"] == "completed"


def test_a_shard_that_the_disk_spoilt_is_made_again(repository, tmp_path, valve, undisturbed):
    rows = make_rows(60)
    wanted = undisturbed(rows)
    valve.passed, valve.passing = 0, 5
    with serving_jobs(repository, tmp_path) as jobs:
        made = jobs.start(rows)
        shard = parts(jobs, made["id"]) / "shard-00000000"
        eventually(shard.exists)
        eventually(lambda: shards(jobs, made["id"]) > 1)
        shard.write_bytes(shard.read_bytes().replace(b"r1", b"r9"))
        valve.open()
        batch = jobs.until(made["id"])
        assert (batch["status"], results(jobs, batch)) == ("completed", wanted)


def test_a_graph_that_fails_fails_the_job_alone(jobs, monkeypatch):
    with monkeypatch.context() as patched:

        def fails(session, feeds, options=None):
            raise RuntimeError("no such kernel")

        patched.setattr(Session, "run", fails)
        batch = jobs.done(make_rows(20))
    assert batch["status"] == "failed"
    (error,) = batch["errors"]["data"]
    assert error["code"] == "inference_failed"
    assert "kernel" not in error["message"]
    assert jobs.done(make_rows(20))["status"] == "completed"


def test_what_nobody_foresaw_fails_the_job_alone(repository, tmp_path, monkeypatch, capfd):
    with serving_jobs(repository, tmp_path) as jobs:
        with monkeypatch.context() as patched:
            patched.setattr("hsoftmax.service.jobs.execution.order_of", lambda *args: 1 / 0)
            batch = jobs.done(make_rows(20))
        assert batch["errors"]["data"][0]["code"] == "internal"
        assert jobs.done(make_rows(20))["status"] == "completed"
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_what_is_old_is_removed_and_what_is_nobodys(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(job_thread, "_SWEEP", 0.2)
    with serving_jobs(repository, tmp_path, job_retention=1.5) as jobs:
        orphan = tmp_path / "files" / "file-lost.csv"
        batch = jobs.done(make_rows(20))
        orphan.write_text("")
        os.utime(orphan, (1, 1))
        (tmp_path / "jobs" / "batch_lost").mkdir()
        assert batch["status"] == "completed"
        eventually(lambda: jobs.http.get(f"/v1/batches/{batch['id']}").status_code == 404)
        eventually(lambda: jobs.http.get("/v1/files").json()["data"] == [])
        eventually(lambda: not list(tmp_path.glob("files/*")) + list(tmp_path.glob("jobs/*")))


def test_what_a_job_will_read_is_not_old(repository, tmp_path, monkeypatch, valve):
    monkeypatch.setattr(job_thread, "_SWEEP", 0.1)
    valve.passing = 0
    with serving_jobs(repository, tmp_path, job_retention=1.0) as jobs:
        first, second = (jobs.start(make_rows(20)) for _ in range(2))
        time.sleep(2.5)
        valve.open()
        assert jobs.until(first["id"])["status"] == "completed"
        assert jobs.until(second["id"])["status"] == "completed"


def test_one_process_at_a_time_does_the_work(repository, tmp_path, valve):
    """Two apps over one state: the second takes over when the first ends."""
    rows = make_rows(50)
    with serving_jobs(repository, tmp_path) as first:
        first.done(make_rows(2))
        with serving(repository, state=tmp_path, job_shard_rows=10) as http:
            second = Client(http, tmp_path)
            valve.passed, valve.passing = 0, 2
            made = second.start(rows)
            eventually(lambda: valve.passed > 2)
            first.http.app.state.context.jobs.stop()
            valve.open()
            batch = second.until(made["id"])
            assert batch["status"] == "completed"
            assert len(second.records(batch)) == 50


def test_several_workers_share_the_jobs(start, tmp_path):
    server = start(state=tmp_path, workers=2, job_shard_rows=20, threads=1)
    body = (
        b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.ndjson"\r\n\r\n'
        + ndjson(make_rows(200)).encode()
        + b"\r\n--x--\r\n"
    )
    kind = {"content-type": "multipart/form-data; boundary=x"}
    _, file = server.call("POST", "/v1/files", body, kind)
    query = json.dumps({"input_file_id": file["id"], "endpoint": SCORE})
    made: list[str] = []

    def make() -> bool:
        status, batch = server.call("POST", "/v1/batches", query)
        assert status in (200, 503)  # of two workers one may have nothing loaded yet
        made.extend([batch["id"]] if status == 200 else [])
        return len(made) == 6

    eventually(make, 30)

    def done() -> bool:
        found = [server.get(f"/v1/batches/{id}")[1] for id in made]
        return all(one["status"] == "completed" for one in found)

    eventually(done, 30)
    status, listed = server.get("/v1/batches")
    assert (status, len(listed["data"])) == (200, 6)
    assert all(one["request_counts"]["completed"] == 200 for one in listed["data"])
    assert server.said().count('"event":"job_ended"') == 6


def test_the_held_out_perplexity_is_the_one_of_the_command_line(tmp_path):
    sample = find_sample()
    to = tmp_path / "repository" / SAMPLE_NAME
    source = [str(sample.folder / "weights.npz"), "--labels", str(sample.folder / "labels.txt")]
    subprocess.run(  # elsewhere, as the service's threads are all there are in this process
        [sys.executable, "-m", "hsoftmax", "export", *source, "--to", str(to)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    labels = (sample.folder / "labels.txt").read_text("utf-8").splitlines()
    rows = [
        {"custom_id": str(i), "input": hidden.tolist(), "target": labels[target],
         "sequence": i // 100}
        for i, (hidden, target) in enumerate(zip(*sample.heldout, strict=True))
    ]  # fmt: skip
    endpoint = f"/v1/models/{SAMPLE_NAME}/score"
    with serving_jobs(tmp_path / "repository", tmp_path / "state", job_shard_rows=700) as jobs:
        batch = jobs.done(rows, endpoint=endpoint, task="perplexity")
    corpus = batch["summary"]["corpus"]
    assert f"{corpus['perplexity']:.6g}" == "75.3877"
    assert (corpus["words"], corpus["sequences"]) == (2000, 20)
