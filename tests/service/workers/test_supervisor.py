"""Several workers behind one port: replaced when killed, with common metrics and weights."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from hsoftmax.service import Settings, StartError, serve
from hsoftmax.service.server.serve import _settings_per_worker
from hsoftmax.service.statistics import RequestSeconds, Statistics
from hsoftmax.service.workers.channel import WorkerChannel, WorkerRecords, request_liveness
from hsoftmax.service.workers.decisions import not_followed, unloaded
from hsoftmax.service.workers.metrics_aggregation import (
    Snapshot,
    aggregate,
    page,
    snapshot,
    without_gauges,
)
from tests.service.conftest import HIDDEN
from tests.service.processes import Process

URL = "/v1/models/words/probabilities"
QUERY = json.dumps({"inputs": [[0.5] * HIDDEN], "targets": [1]})
ADMIN = {"authorization": "Bearer root"}


def workers_of(server: Process) -> list[int]:
    """The process ids of the workers, without other children of the supervisor."""
    below = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return [pid for pid in map(int, below.split()) if b"spawn_main" in command(pid)]


def command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def eventually(holds: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def ask(server: Process) -> int:
    return server.call("POST", URL, QUERY)[0]


def numbers(server: Process) -> dict[tuple[str, tuple], float]:
    connection = server.connect()
    connection.request("GET", "/metrics")
    return numbers_in(connection.getresponse().read().decode())


def numbers_in(text: str) -> dict[tuple[str, tuple], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def answered(found: dict) -> float:
    """Answered requests to the operation, of all workers."""
    return sum(
        value
        for (name, labels), value in found.items()
        if name == "hsoftmax_requests_total" and ("code", "ok") in labels
        and ("model", "words") in labels
    )  # fmt: skip


@pytest.fixture
def pair(start, copy) -> Process:
    server = start(copy, workers=2, admin_key="root")
    server.until("loaded")  # the second
    return server


def test_workers_serve_together_are_replaced_and_counted_as_one(pair):
    before = workers_of(pair)
    assert len(before) == 2
    for _ in range(40):
        assert ask(pair) == 200
    found = numbers(pair)
    assert answered(found) == 40
    assert {dict(labels).get("worker") for (name, labels) in found if "resident" in name} == {
        "0",
        "1",
    }
    assert found["hsoftmax_ready", ()] == 1
    os.kill(before[0], signal.SIGKILL)
    assert pair.until("worker_ended")["code"] == -signal.SIGKILL
    for _ in range(20):
        assert ask(pair) == 200  # the other worker answers
    eventually(lambda: len(workers_of(pair)) == 2)
    pair.until("loaded")
    assert answered(numbers(pair)) == 60
    for _ in range(20):
        assert ask(pair) == 200
    assert answered(numbers(pair)) == 80
    for _ in range(4):  # whichever worker is asked
        (entry,) = pair.get("/v2/models/words/versions/2/stats")[1]["model_stats"]
        assert (entry["inference_count"], entry["execution_count"]) == (80, 80)


def test_unload_and_reload_reach_all_workers_and_their_successors(pair):
    unload, back = "/v1/models/words/unload", "/v1/models/words/reload"
    assert pair.call("POST", unload, headers=ADMIN)[0] == 200
    assert {ask(pair) for _ in range(30)} == {404}
    os.kill(workers_of(pair)[0], signal.SIGKILL)
    pair.until("loaded")
    assert {ask(pair) for _ in range(30)} == {404}
    assert pair.call("POST", back, headers=ADMIN)[0] == 200
    assert {ask(pair) for _ in range(30)} == {200}


def test_sigterm_drains_all_workers_under_load(start):
    """A client that obeys `connection: close` and readiness loses nothing."""
    server = start(workers=2, drain_delay=1.0)
    server.until("loaded")
    failures: list[object] = []

    def hammer() -> None:
        try:
            while server.get("/healthz/ready")[0] == 200:
                failures.extend([] if ask(server) == 200 else ["refused"])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    pids = workers_of(server)
    server.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert failures == []
    assert server.process.wait(timeout=20) == 0
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_sighup_stops_neither_the_workers_nor_the_supervisor(pair):
    before = workers_of(pair)
    for pid in [pair.process.pid, *before]:
        os.kill(pid, signal.SIGHUP)
    told = [pair.until("sighup_ignored") for _ in range(3)]
    assert {one.get("worker") for one in told} == {None, 0, 1}
    assert {ask(pair) for _ in range(10)} == {200}
    assert workers_of(pair) == before
    pair.process.send_signal(signal.SIGTERM)
    assert pair.process.wait(timeout=20) == 0
    assert all(json.loads(line)["event"] for line in pair.read_log().splitlines())


def test_sighup_does_not_end_a_worker_that_is_only_starting(start):
    server = start(waits_for="serving", workers=2)
    eventually(lambda: len(workers_of(server)) == 2)
    before = workers_of(server)
    for pid in before:
        os.kill(pid, signal.SIGHUP)
    server.until("loaded")
    server.until("loaded")
    assert workers_of(server) == before


IMPATIENT = """
from hsoftmax import service
from hsoftmax.service.workers import channel, supervisor

channel._REQUEST_TIMEOUT_S, supervisor._GRACE_S = 0.3, 0.2
supervisor._PROBE_INTERVAL_S, supervisor._SILENCE_TIMEOUT_S = 0.2, 1.0
service.serve(service.Settings())
"""


def test_a_worker_that_has_long_been_silent_is_replaced(start):
    server = start(run=IMPATIENT, workers=2, drain_timeout=0.2)
    server.until("loaded")
    time.sleep(1)  # until it has answered one probe
    stopped = workers_of(server)[1]
    os.kill(stopped, signal.SIGSTOP)
    assert server.until("worker_stuck")["silent"] is True
    assert server.until("worker_ended")["code"] == -signal.SIGKILL
    server.until("loaded")
    eventually(lambda: len(workers_of(server)) == 2)
    assert stopped not in workers_of(server)


def test_workers_end_when_the_supervisor_is_killed(start):
    server = start(workers=2)
    server.until("loaded")
    pids = workers_of(server)
    server.process.kill()
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_workers_that_cannot_start_are_an_error_at_start(tmp_path):
    with pytest.raises(StartError, match="repository: expected a folder, got none"):
        serve(Settings(repository=tmp_path / "nowhere", port=0, workers=2, log_level="error"))


def test_threads_are_divided_among_workers_unless_set(tmp_path):
    settings = Settings(repository=tmp_path, workers=2, threads=5)
    assert _settings_per_worker(settings).threads == 5
    settings = Settings(repository=tmp_path, workers=4)
    assert _settings_per_worker(settings).threads == max(1, settings.threads // 4)


def counted(requests: float, depth: float, resident: float) -> Snapshot:
    counter = CounterMetricFamily("hsoftmax_requests", "Requests.", labels=("model",))
    counter.add_metric(["words"], requests)
    waiting = GaugeMetricFamily("hsoftmax_queue_depth", "Waiting.", value=depth)
    ready = GaugeMetricFamily("hsoftmax_ready", "Ready.", value=1 if depth < 5 else 0)
    memory = GaugeMetricFamily("process_resident_memory_bytes", "Memory.", value=resident)
    task = GaugeMetricFamily("hsoftmax_task_info", "Tasks.", labels=("task", "runtime"))
    task.add_metric(["top_k", "native"], 1)
    return snapshot([counter, waiting, ready, memory, task])


def test_counts_of_workers_are_added_by_their_meaning():
    text = page(aggregate({"0": counted(3, 1, 100), "1": counted(4, 9, 200)})).decode()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines == [
        'hsoftmax_requests_total{model="words"} 7.0',
        "hsoftmax_queue_depth 10.0",
        "hsoftmax_ready 0.0",
        'process_resident_memory_bytes{worker="0"} 100.0',
        'process_resident_memory_bytes{worker="1"} 200.0',
        'hsoftmax_task_info{runtime="native",task="top_k"} 1.0',
    ]
    assert [family.name for family in without_gauges(counted(1, 1, 1)).families] == [
        "hsoftmax_requests"
    ]


def served(rows: int) -> list[dict]:
    """The statistics of one request of so many rows."""
    statistics = Statistics()
    statistics.succeeded("words", "2", rows, RequestSeconds(1.0, 0.0, 1.0, 0.0))
    return statistics.listed()


def test_a_successor_continues_the_counts_and_the_decisions(tmp_path):
    records = WorkerRecords.create(2)
    first = WorkerChannel(tmp_path, records, 0)
    first.persist(counted(3, 1, 100))
    first.persist_statistics(served(5))
    first.decide("words", "unload")
    second = WorkerChannel(tmp_path, records, 0)
    assert unloaded(second.followed) == {"words"}
    kept = second.persist(counted(2, 0, 50))
    text = page(kept).decode()
    assert 'hsoftmax_requests_total{model="words"} 5.0' in text
    assert "process_resident_memory_bytes 50.0" in text
    second.persist_statistics(served(2))
    (entry,) = WorkerChannel(tmp_path, records, 0).persist_statistics(served(4))
    assert (entry["inference_count"], entry["inference_stats"]["success"]["count"]) == (11, 3)
    second.decide("words", "reload")
    assert unloaded(WorkerChannel(tmp_path, records, 1).followed) == frozenset()
    assert not_followed(first.decisions, first.followed).keys() == {"words"}
    records.close()


def test_a_worker_that_does_not_answer_is_not_alive(tmp_path):
    assert request_liveness(tmp_path, 0) is None
