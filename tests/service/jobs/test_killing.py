"""A server that is killed at any instant, again and again: its job finishes by itself, the same."""

import fcntl
import http.client
import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.service.processes import Process

from .conftest import SCORE, make_rows, ndjson, serving_jobs

COUNT, SHARD = 1500, 20


def make_input() -> str:
    """Rows with flaws of every kind in many shards, duplicates of rows far before among them."""
    rows = make_rows(COUNT)
    for i in range(100, COUNT, 97):
        rows[i]["target"] = -1
        rows[i + 1]["custom_id"] = f"r{i // 2}"
        rows[i + 2]["input"] = rows[i + 2]["input"][1:]
    return ndjson(rows).replace('{"custom_id": "r50"', "{wrong")


@pytest.fixture(scope="module")
def undisturbed(repository, tmp_path_factory) -> tuple[bytes, bytes]:
    state = tmp_path_factory.mktemp("undisturbed")
    with serving_jobs(repository, state, job_shard_rows=SHARD) as jobs:
        file = jobs.upload(make_input())["id"]
        batch = jobs.until(jobs.create(input_file_id=file, task="perplexity")["id"])
        assert batch["status"] == "completed"
        return jobs.content(batch["output_file_id"]), jobs.content(batch["error_file_id"])


class Killed:
    """One state folder, and one server after another that works at it until it is killed."""

    def __init__(self, repository: Path, state: Path, seed: int) -> None:
        self.settings = {"state": state, "job_shard_rows": SHARD, "watch": False}
        self.repository = repository
        self.rng = random.Random(seed)
        self.jobs: list[str] = []
        self.file = ""
        self.hits = 0

    def run(self, kills: int, most_seconds: float) -> None:
        for _ in range(kills):
            server = Process(self.repository, **self.settings)
            try:
                self._keep_busy(server)
                time.sleep(self.rng.random() * most_seconds)
                before = self._status(server)
            finally:
                server.end()  # SIGKILL
            self.hits += before not in ("completed", "failed")

    def results(self) -> list[tuple[dict, bytes, bytes]]:
        """What all jobs came to, once a last server has been left alone."""
        server = Process(self.repository, **self.settings)
        try:
            give_up = time.monotonic() + 120
            while not all(self._batch(server, id)["status"] == "completed" for id in self.jobs):
                assert time.monotonic() < give_up, server.said()
                time.sleep(0.05)
            return [self._result(server, self._batch(server, id)) for id in self.jobs]
        finally:
            server.end()

    def _keep_busy(self, server: Process) -> None:
        """Make a job if there is none that has yet to end."""
        if not self.file:
            self.file = upload(server, make_input())
        if not self.jobs or self._status(server) == "completed":
            query = {"input_file_id": self.file, "endpoint": SCORE, "task": "perplexity"}
            status, batch = server.call("POST", "/v1/batches", json.dumps(query))
            assert status == 200, batch
            self.jobs.append(batch["id"])

    def _status(self, server: Process) -> str:
        return self._batch(server, self.jobs[-1])["status"]

    def _batch(self, server: Process, id: str) -> dict:
        status, batch = server.get(f"/v1/batches/{id}")
        assert status == 200
        assert batch["status"] not in ("failed", "expired", "cancelled"), batch
        return batch

    def _result(self, server: Process, batch: dict) -> tuple[dict, bytes, bytes]:
        files = batch["output_file_id"], batch["error_file_id"]
        return (batch, *(download(server, file) for file in files))


def upload(server: Process, content: str) -> str:
    body = (
        '--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        '--x\r\nContent-Disposition: form-data; name="file"; filename="a.ndjson"\r\n\r\n'
        f"{content}\r\n--x--\r\n"
    )
    kind = {"content-type": "multipart/form-data; boundary=x"}
    status, file = server.call("POST", "/v1/files", body, kind)
    assert status == 200, file
    return file["id"]


def download(server: Process, file: str) -> bytes:
    connection = http.client.HTTPConnection(server.address, timeout=10)
    connection.request("GET", f"/v1/files/{file}/content")
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert answer.status == 200
    return content


def expect_undisturbed(killed: Killed, undisturbed: tuple[bytes, bytes]) -> None:
    output, errors = undisturbed
    rows = len(output.splitlines()) + len(errors.splitlines())
    assert rows == COUNT
    for batch, *got in killed.results():
        assert tuple(got) == undisturbed
        counts = batch["request_counts"]
        assert counts["completed"] + counts["failed"] == counts["total"] == COUNT


def test_killed_a_few_times_a_job_finishes_as_if_nothing_had_been(
    repository, tmp_path, undisturbed
):
    killed = Killed(repository, tmp_path, seed=1)
    killed.run(kills=3, most_seconds=0.4)
    assert killed.hits > 0
    expect_undisturbed(killed, undisturbed)


def test_told_to_stop_a_server_leaves_its_job_to_the_next(repository, tmp_path, undisturbed):
    stopped = Killed(repository, tmp_path, seed=3)
    server = Process(repository, **stopped.settings, drain_delay=5)
    try:
        stopped._keep_busy(server)
        while stopped._status(server) == "validating":
            time.sleep(0.01)
        server.process.terminate()
        time.sleep(0.5)
        with hold_runner(tmp_path):  # long before the delay is over
            assert stopped._status(server) == "in_progress"
    finally:
        server.end()
    expect_undisturbed(stopped, undisturbed)


@contextmanager
def hold_runner(state: Path) -> Iterator[None]:
    with (state / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_a_hundred_times_jobs_finish_as_if_nothing_had_been(
    repository, tmp_path, undisturbed
):
    killed = Killed(repository, tmp_path, seed=2)
    killed.run(kills=100, most_seconds=0.35)
    assert killed.hits > 50
    assert len(killed.jobs) > 3
    expect_undisturbed(killed, undisturbed)
