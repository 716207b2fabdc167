"""Jobs of a server that is killed again and again finish with the same output."""

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

from .conftest import SCORE, make_rows, ndjson, opened_database, serving_jobs, state_settings

COUNT, SHARD = 1500, 20


def make_input() -> str:
    """Rows with errors of every kind in many shards, also ids of rows in much earlier shards."""
    rows = make_rows(COUNT)
    for i in range(100, COUNT, 97):
        rows[i]["target"] = -1
        rows[i + 1]["custom_id"] = f"r{i // 2}"
        rows[i + 2]["input"] = rows[i + 2]["input"][1:]
    return ndjson(rows).replace('{"custom_id": "r50"', "{wrong")


@pytest.fixture(scope="module")
def reference(repository, tmp_path_factory) -> tuple[bytes, bytes]:
    """Output and error file of the job on a server that is not killed."""
    state = tmp_path_factory.mktemp("reference")
    with serving_jobs(repository, state, job_shard_rows=SHARD) as jobs:
        file = jobs.upload(make_input())["id"]
        batch = jobs.until(jobs.create(input_file_id=file, task="perplexity")["id"])
        assert batch["status"] == "completed"
        return jobs.content(batch["output_file_id"]), jobs.content(batch["error_file_id"])


class KilledServers:
    """Servers that run one after another on one state folder, each until it is killed."""

    def __init__(self, repository: Path, state: Path, seed: int) -> None:
        self.settings = {
            **state_settings(state), "job_shard_rows": SHARD, "watch": False, "job_lease": 1
        }  # fmt: skip
        self.repository = repository
        self.rng = random.Random(seed)
        self.jobs: list[str] = []
        self.file = ""
        self.kills_during_a_job = 0

    def run(self, kills: int, max_seconds: float) -> None:
        for _ in range(kills):
            server = Process(self.repository, **self.settings)
            try:
                self._keep_busy(server)
                time.sleep(self.rng.random() * max_seconds)
                before = self._status(server)
            finally:
                server.end()  # SIGKILL
            self.kills_during_a_job += before not in ("completed", "failed")

    def results(self) -> list[tuple[dict, bytes, bytes]]:
        """Wait until a last server has finished all jobs, and return their batches and files."""
        server = Process(self.repository, **self.settings)
        try:
            deadline = time.monotonic() + 120
            while not all(self._batch(server, id)["status"] == "completed" for id in self.jobs):
                assert time.monotonic() < deadline, server.read_log()
                time.sleep(0.05)
            return [self._result(server, self._batch(server, id)) for id in self.jobs]
        finally:
            server.end()

    def _keep_busy(self, server: Process) -> None:
        """Create a job if all jobs are completed."""
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
    headers = {"content-type": "multipart/form-data; boundary=x"}
    status, file = server.call("POST", "/v1/files", body, headers)
    assert status == 200, file
    return file["id"]


def download(server: Process, file: str) -> bytes:
    connection = http.client.HTTPConnection(server.address, timeout=10)
    connection.request("GET", f"/v1/files/{file}/content")
    response = connection.getresponse()
    content = response.read()
    connection.close()
    assert response.status == 200
    return content


def expect_reference(servers: KilledServers, reference: tuple[bytes, bytes]) -> None:
    output, errors = reference
    rows = len(output.splitlines()) + len(errors.splitlines())
    assert rows == COUNT
    for batch, *got in servers.results():
        assert tuple(got) == reference
        counts = batch["request_counts"]
        assert counts["completed"] + counts["failed"] == counts["total"] == COUNT


def test_a_job_that_is_killed_a_few_times_has_the_reference_output(repository, tmp_path, reference):
    servers = KilledServers(repository, tmp_path, seed=1)
    servers.run(kills=3, max_seconds=0.4)
    assert servers.kills_during_a_job > 0
    expect_reference(servers, reference)


def test_a_stopping_server_leaves_its_job_to_the_next(repository, tmp_path, reference):
    servers = KilledServers(repository, tmp_path, seed=3)
    server = Process(repository, **servers.settings, drain_delay=5)
    try:
        servers._keep_busy(server)
        while servers._status(server) == "validating":
            time.sleep(0.01)
        server.process.terminate()
        time.sleep(0.5)
        with released(tmp_path):  # long before the drain delay ends
            assert servers._status(server) == "in_progress"
    finally:
        server.end()
    expect_reference(servers, reference)


@contextmanager
def released(state: Path) -> Iterator[None]:
    """Check that no process executes a job; with a state folder, none can begin meanwhile."""
    with opened_database(state) as database:
        if database.shared:
            assert database.rows("SELECT lease_holder FROM batches") == [(None,)]
            yield
            return
    with (state / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_jobs_that_are_killed_a_hundred_times_have_the_reference_output(
    repository, tmp_path, reference
):
    servers = KilledServers(repository, tmp_path, seed=2)
    servers.run(kills=100, max_seconds=0.35)
    assert servers.kills_during_a_job > 50
    assert len(servers.jobs) > 3
    expect_reference(servers, reference)
