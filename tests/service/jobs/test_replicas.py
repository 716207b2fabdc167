"""Two replicas behind haproxy on one PostgreSQL and one folder of files, killed again and again.

They need these packages: apt-get install postgresql haproxy
"""

import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from hsoftmax.service import Settings
from hsoftmax.service.jobs.open_state import StateStore
from tests.service.processes import Process

from .cluster import Cluster, free_port
from .cluster import running as running_cluster
from .conftest import SCORE, eventually, make_rows, ndjson, serving_jobs
from .stopping_service import STOPPING_SERVICE

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(1200)]

COUNT, SHARD, SEED = 300, 20, 11
PHASES = ["claim", "shard", "assembly", "publish", "finish"]
TASKS = [{"task": "perplexity"}, {"task": "top_k", "k": 3}, {"task": "target_log_prob"},
         {"task": "sample", "seed": 3}]  # fmt: skip

HAPROXY = """
defaults
    mode http
    timeout connect 2s
    timeout client 1m
    timeout server 1m
    retries 3
    option redispatch
frontend clients
    bind 127.0.0.1:{port}
    default_backend hsoftmax
backend hsoftmax
    option httpchk GET /healthz/ready
    default-server check inter 100ms fall 1 rise 1
    server one 127.0.0.1:{ports[0]}
    server two 127.0.0.1:{ports[1]}
"""


@pytest.fixture(scope="module", autouse=True)
def database_kind() -> None:
    """These tests have PostgreSQL alone, in a cluster of their own."""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


def make_input() -> str:
    """Rows with errors of several kinds in many shards."""
    rows = make_rows(COUNT)
    for i in range(50, COUNT, 37):
        rows[i]["target"] = -1
        rows[i + 1]["custom_id"] = f"r{i // 2}"
    return ndjson(rows)


def reference(repository: Path, state: Path) -> list[tuple[bytes, bytes, bytes]]:
    """Return the files of an undisturbed job of each task, on a server with SQLite."""
    with serving_jobs(repository, state, job_shard_rows=SHARD) as jobs:
        file = jobs.upload(make_input())["id"]
        batches = [jobs.until(jobs.create(input_file_id=file, **one)["id"]) for one in TASKS]
        assert {batch["status"] for batch in batches} == {"completed"}
        return [tuple(jobs.content(batch[f"{one}_file_id"]) for one in
                      ("output", "error", "sequences")) for batch in batches]  # fmt: skip


class Replicas:
    """Two replicas and haproxy. Requests go to haproxy, again if they meet a killed replica."""

    def __init__(self, repository: Path | str, folder: Path, cluster: Cluster) -> None:
        self._phases = folder / "phases"
        self._phases.mkdir()
        self._repository = repository
        (folder / "state").mkdir()
        self.settings = {
            "state": cluster.url(folder), "state_files": folder / "state", "job_lease": 2,
            "job_shard_rows": SHARD, "watch": False,
        }  # fmt: skip
        self.ports = [free_port(), free_port()]
        self.port = free_port()
        os.environ["PHASES"] = str(self._phases)
        self.replicas: list[Process] = []
        try:
            self.replicas = [self._start(port) for port in self.ports]
        except BaseException:
            self.end()
            raise

    def _start(self, port: int) -> Process:
        return Process(self._repository, STOPPING_SERVICE, port=port, **self.settings)

    def stop_in(self, phase: str) -> None:
        """Stop the next replica that gets into the phase."""
        (self._phases / phase).touch()

    def kill_in(self, phase: str, rng: random.Random) -> int:
        """Kill the replica that stopped in the phase, and start it again; return which."""
        (marker,) = eventually(lambda: list(self._phases.glob(f"{phase}.*")), 60)
        time.sleep(rng.random() * 0.3)
        (killed,) = [
            i for i, one in enumerate(self.replicas) if str(one.process.pid) == marker.suffix[1:]
        ]
        marker.unlink()
        self.replicas[killed].end()  # SIGKILL
        self.replicas[killed] = self._start(self.ports[killed])
        return killed

    def call(self, method: str, path: str, body: str = "", kind: str = "application/json") -> bytes:
        """Send a request to haproxy until a replica answers it with 200."""
        deadline = time.monotonic() + 60
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            try:
                headers = {"content-type": kind, "idempotency-key": f"{hash(body)}"}
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                content = response.read()
                if response.status == 200:
                    return content
                assert response.status in (502, 503), content
            except (OSError, http.client.HTTPException):
                pass
            finally:
                connection.close()
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def end(self) -> None:
        for replica in self.replicas:
            replica.end()


@contextmanager
def haproxy(replicas: Replicas, folder: Path) -> Iterator[None]:
    program = shutil.which("haproxy")
    assert program is not None, "expected the program haproxy, got none: apt-get install haproxy"
    config = folder / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=replicas.port, ports=replicas.ports))
    process = subprocess.Popen([program, "-db", "-f", str(config)], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def replicas(repository, tmp_path, cluster, monkeypatch) -> Iterator[Replicas]:
    monkeypatch.setenv("PHASES", "")  # removes the variable in the end
    replicas = Replicas(repository, tmp_path, cluster)
    try:
        with haproxy(replicas, tmp_path):
            yield replicas
    finally:
        replicas.end()


def test_killed_replicas_finish_all_jobs_to_the_same_bytes(repository, tmp_path, replicas):
    wanted = reference(repository, tmp_path / "reference")
    rng = random.Random(SEED)
    phases = PHASES * 4
    rng.shuffle(phases)
    began = time.monotonic()
    form = (
        '--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        '--x\r\nContent-Disposition: form-data; name="file"; filename="a.ndjson"\r\n\r\n'
        f"{make_input()}\r\n--x--\r\n"
    )
    file = json.loads(replicas.call("POST", "/v1/files", form, "multipart/form-data; boundary=x"))
    ids, killed = [], []
    for i, phase in enumerate(phases):
        query = {"input_file_id": file["id"], "endpoint": SCORE, "metadata": {"number": str(i)}}
        query |= TASKS[i % len(TASKS)]
        replicas.stop_in(phase)
        ids.append(json.loads(replicas.call("POST", "/v1/batches", json.dumps(query)))["id"])
        killed.append(replicas.kill_in(phase, rng))
    assert set(killed) == {0, 1}
    for i, id in enumerate(ids):
        expect_completed(replicas, id, wanted[i % len(TASKS)])
    print(f"{time.monotonic() - began:.0f} s; killed {list(zip(phases, killed, strict=True))}")
    listed = json.loads(replicas.call("GET", "/v1/batches?limit=100"))["data"]
    assert [one["id"] for one in listed] == ids[::-1]  # each request made one job
    assert not list((tmp_path / "state" / "jobs").glob("*/*.parts"))


def expect_completed(replicas: Replicas, id: str, wanted: tuple[bytes, ...]) -> dict:
    """Wait for a job; it has every row once, in the wanted bytes. Return it."""
    batch = eventually(lambda: ended(replicas, id), 120)
    assert batch["status"] == "completed", batch
    counts = batch["request_counts"]
    assert counts["completed"] + counts["failed"] == counts["total"] == COUNT
    files = [batch[f"{one}_file_id"] for one in ("output", "error", "sequences")]
    got = [b"" if one is None else replicas.call("GET", f"/v1/files/{one}/content")
           for one in files]  # fmt: skip
    assert tuple(got) == wanted
    assert len(got[0].splitlines()) + len(got[1].splitlines()) == COUNT
    return batch


def ended(replicas: Replicas, id: str) -> dict | None:
    batch = json.loads(replicas.call("GET", f"/v1/batches/{id}"))
    return batch if batch["status"] in ("completed", "failed", "expired", "cancelled") else None


def test_a_replica_that_hangs_loses_its_job_and_does_no_harm(repository, tmp_path, replicas):
    """It wakes up when another replica has claimed the job, which waits for the job's files."""
    form = (
        '--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        '--x\r\nContent-Disposition: form-data; name="file"; filename="a.ndjson"\r\n\r\n'
        f"{ndjson(make_rows(8000))}\r\n--x--\r\n"
    )
    file = json.loads(replicas.call("POST", "/v1/files", form, "multipart/form-data; boundary=x"))
    query = {"input_file_id": file["id"], "endpoint": SCORE}
    id = json.loads(replicas.call("POST", "/v1/batches", json.dumps(query)))["id"]
    shards = tmp_path / "state" / "jobs" / id / "output.ndjson.parts"
    eventually(lambda: len(list(shards.glob("shard-????????"))) > 3)
    settings = Settings(repository=repository, **holding_settings(replicas))
    with closing(StateStore(settings).open()) as database:
        ((holder,),) = database.rows("SELECT lease_holder FROM batches")
    pid = int(holder.split("-")[-2])
    hung, other = sorted(replicas.replicas, key=lambda one: one.process.pid != pid)
    os.kill(pid, signal.SIGSTOP)
    try:
        other.until("job_still_held")
    finally:
        os.kill(pid, signal.SIGCONT)
    hung.until("job_taken_over")
    batch = eventually(lambda: ended(replicas, id), 60)
    assert (batch["status"], batch["request_counts"]["completed"]) == ("completed", 8000)
    with serving_jobs(repository, tmp_path / "reference", job_shard_rows=SHARD) as jobs:
        wanted = jobs.run(make_rows(8000))
        got = replicas.call("GET", f"/v1/files/{batch['output_file_id']}/content")
        assert got == jobs.content(wanted["output_file_id"])


def holding_settings(replicas: Replicas) -> dict:
    return {name: replicas.settings[name] for name in ("state", "state_files")}
