"""With native kernels a row has one answer, to the bit, in every way that it is asked for.

The graphs of ONNX Runtime would fail these tests, as the last digits of many rows depend on the
batch. docs/reproducible.md lists what is the same.
"""

import asyncio
import http.client
import io
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsoftmax import exporter, load, models
from hsoftmax.cli import run
from hsoftmax.models.arrays import Array
from hsoftmax.runtime.sessions import Feeds, RunOptions, Session
from hsoftmax.service import Settings, context, create_app
from hsoftmax.service.logging import json_log

from .models.adaptive import adaptive
from .models.trees import random_huffman
from .service.conftest import random_model
from .service.jobs.test_killing import download, upload
from .service.processes import Process
from .service.workers.test_supervisor import numbers

ROWS, HIDDEN, CLUSTERS, BLOCK, K = 10_000, 16, 12, 15, 3
ROUTE = "/v1/models/words"
JSON, NPY, NDJSON = "application/json", "application/x-npy", "application/x-ndjson"

# Sends a path, a body and its format, and returns the body of the answer.
Ask = Callable[[str, bytes, str], Awaitable[bytes]]
Record = dict[str, Any]

_rng = np.random.default_rng(19)
INPUT = (2 * _rng.normal(size=(ROWS, HIDDEN))).astype(np.float32)
TARGET = _rng.integers(0, CLUSTERS * BLOCK, ROWS)


@dataclass
class Answers:
    """The answers to all rows: `target_log_prob`, and `top_k`; NaN before a row is answered."""

    log_prob: Array
    targets: Array
    probabilities: Array

    @classmethod
    def empty(cls) -> "Answers":
        log_prob = np.full(ROWS, np.nan, np.float32)
        return cls(log_prob, np.full((ROWS, K), -1), np.full((ROWS, K), np.nan, np.float32))

    @classmethod
    def of(cls, log_prob: Sequence[Record], top_k: Sequence[Record]) -> "Answers":
        """The answers in the records of a stream, a job or a file."""
        return cls(
            np.array([one["log_prob"] for one in log_prob], np.float32),
            np.array([one["targets"] for one in top_k]),
            np.array([one["probabilities"] for one in top_k]).astype(np.float32),
        )

    def expect_bits_of(self, other: "Answers") -> None:
        assert_same_bits(self.log_prob, other.log_prob)
        assert_same_bits(self.targets, other.targets)
        assert_same_bits(self.probabilities, other.probabilities)


def assert_same_bits(got: Array, wanted: Array) -> None:
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    same = got.tobytes() == wanted.tobytes()  # not in the assert, which would compare the texts
    assert same, f"{np.mean(got != wanted):.1%} differ"


async def ask_all(
    ask: Ask, batches: Sequence[Array], formats: Sequence[str], together: int
) -> Answers:
    """Ask for both tasks of every row, `together` requests at a time, in each format in turn."""
    answers = Answers.empty()

    async def one(rows: Array, format: str) -> None:
        answers.log_prob[rows] = await _log_probs(ask, rows, format)
        body = json.dumps({"inputs": INPUT[rows].tolist(), "k": K}).encode()
        results = json.loads(await ask(f"{ROUTE}/top_k", body, JSON))["results"]
        answers.targets[rows] = [result["targets"] for result in results]
        answers.probabilities[rows] = [result["probabilities"] for result in results]

    for start in range(0, len(batches), together):
        some = range(start, min(start + together, len(batches)))
        await asyncio.gather(*(one(batches[i], formats[i % len(formats)]) for i in some))
    return answers


async def _log_probs(ask: Ask, rows: Array, format: str) -> Array:
    if format == JSON:
        query = {"inputs": INPUT[rows].tolist(), "targets": TARGET[rows].tolist(), "log": True}
        answer = await ask(f"{ROUTE}/probabilities", json.dumps(query).encode(), JSON)
        return np.array(json.loads(answer)["log_probabilities"])
    body = io.BytesIO()
    np.save(body, INPUT[rows])
    targets = "&targets=".join(map(str, TARGET[rows]))  # a list of one for each row
    url = f"{ROUTE}/probabilities?log=true&targets={targets}"
    return np.load(io.BytesIO(await ask(url, body.getvalue(), NPY))).reshape(len(rows))


def random_batches(seed: int, max_rows: int = 300) -> list[Array]:
    """All rows in a random order, in batches of random sizes."""
    rng = np.random.default_rng(seed)
    cuts = np.cumsum(rng.integers(1, max_rows + 1, ROWS))
    return np.split(rng.permutation(ROWS), cuts[cuts < ROWS])


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reproducible") / "repository"
    rng = np.random.default_rng(1)
    shapes = [(HIDDEN, CLUSTERS), (CLUSTERS,), (CLUSTERS, HIDDEN, BLOCK), (CLUSTERS, BLOCK)]
    model = models.from_theano(*(rng.normal(size=shape).astype(np.float32) for shape in shapes))
    exporter.export_model(model, exporter.parse_destination(folder / "words" / "1"))
    return folder


# --- alone, and together in one process ---------------------------------------------------------


class App:
    """The service in this process, without sockets."""

    def __init__(self, repository: Path, threads: int) -> None:
        settings = Settings(repository=repository, threads=threads, native="on")
        self._app = create_app(settings, log=json_log("error"))
        self.context = context.context_of(self._app)
        self.context.load()

    async def ask(self, url: str, body: bytes, format: str) -> bytes:
        path, _, query = url.partition("?")
        scope = {
            "type": "http", "method": "POST", "path": path, "query_string": query.encode(),
            "headers": [(name, format.encode()) for name in (b"content-type", b"accept")],
        }  # fmt: skip
        messages: list[dict[str, Any]] = []
        received = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> dict[str, Any]:
            if (message := next(received, None)) is None:
                await asyncio.Event().wait()  # the client stays
            return message

        async def send(message: dict[str, Any]) -> None:
            messages.append(message)

        await self._app(scope, receive, send)
        content = b"".join(message.get("body", b"") for message in messages[1:])
        assert messages[0]["status"] == 200, content
        return content

    def batches(self) -> dict[str, tuple[float, int]]:
        """The requests that were computed in batches, and the number of batches, by lane."""
        metrics = self.context.metrics
        return {
            lane: (requests, sum(metrics.histograms["batch_rows"][lane,].counts))
            for (lane,), requests in metrics.counters["batched_requests"].items()
            if requests
        }


@contextmanager
def running(repository: Path, threads: int) -> Iterator[App]:
    app = App(repository, threads)
    try:
        yield app
    finally:
        app.context.engine.close()


@pytest.fixture(scope="module")
def alone(repository) -> Answers:
    """The answers to rows that are asked for one after the other."""
    with running(repository, 1) as app:
        answers = asyncio.run(ask_all(app.ask, list(np.arange(ROWS)[:, None]), [JSON], 1))
        assert not app.batches()
    return answers


def test_rows_alone_have_the_answers_of_the_model(repository, alone):
    assert np.isfinite(alone.log_prob).all()
    best = alone.targets[:, 0] == TARGET
    assert best.any()
    probability = np.exp(alone.log_prob[best].astype(np.float64)).astype(np.float32)
    assert_same_bits(alone.probabilities[best, 0], probability)


def slowly(original: Callable) -> Callable:
    """A run that takes as long as one of a large bundle, so that other requests come meanwhile."""

    def run(session: Session, feeds: Feeds, options: RunOptions | None = None) -> list[Array]:
        time.sleep(0.004)
        return original(session, feeds, options)

    return run


@pytest.mark.parametrize("threads", [1, 2])
def test_requests_that_share_batches(repository, alone, monkeypatch, threads):
    monkeypatch.setattr(context, "INLINE_MAX_COST", -1)  # else rows this small never wait
    monkeypatch.setattr(Session, "run", slowly(Session.run))
    batches = random_batches(threads, max_rows=5)
    with running(repository, threads) as app:
        answers = asyncio.run(ask_all(app.ask, batches, [JSON], 500))
        run_batches = app.batches()
    assert run_batches.keys() == {"target", "top_k"}
    for requests, count in run_batches.values():
        assert requests == len(batches)
        assert requests / count > 4
    answers.expect_bits_of(alone)


@pytest.mark.parametrize("threads", [1, 2])
def test_batches_of_any_size_and_order(repository, alone, threads):
    with running(repository, threads) as app:
        answers = asyncio.run(ask_all(app.ask, random_batches(threads), [JSON, NPY], 8))
    answers.expect_bits_of(alone)


# --- one and two workers, and the command line --------------------------------------------------


def input_lines() -> bytes:
    lines = (
        json.dumps({"custom_id": str(i), "input": row, "target": target})
        for i, (row, target) in enumerate(zip(INPUT.tolist(), TARGET.tolist(), strict=True))
    )
    return "".join(f"{line}\n" for line in lines).encode()


class Server:
    """A service in processes of its own."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def ask(self, url: str, body: bytes, format: str) -> bytes:
        return await asyncio.to_thread(self.post, url, body, format)

    def post(self, url: str, body: bytes, format: str) -> bytes:
        connection = http.client.HTTPConnection(self.process.address, timeout=60)
        connection.request("POST", url, body, {"content-type": format, "accept": format})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        assert response.status == 200, content
        return content

    def stream(self, task: str) -> tuple[list[Record], str]:
        """The records of a stream of all rows, and the checksum in its summary."""
        content = self.post(f"{ROUTE}/score?task={task}&k={K}", input_lines(), NDJSON)
        *records, last = map(json.loads, content.splitlines())
        assert last["summary"]["scored"] == ROWS
        return records, last["summary"]["sha256"]

    def job(self, file: str, task: str) -> list[Record]:
        query = {
            "endpoint": f"{ROUTE}/score", "completion_window": "24h", "input_file_id": file,
            "task": task, "k": K,
        }  # fmt: skip
        batch = json.loads(self.post("/v1/batches", json.dumps(query).encode(), JSON))
        deadline = time.monotonic() + 60
        while batch["status"] != "completed":
            assert time.monotonic() < deadline, batch
            time.sleep(0.05)
            batch = self.process.get(f"/v1/batches/{batch['id']}")[1]
        lines = download(self.process, batch["output_file_id"]).splitlines()
        return [json.loads(line) for line in lines]

    def mean_batch(self) -> float:
        found = numbers(self.process)
        total, count = (
            sum(value for (name, _), value in found.items() if name == f"hsoftmax_batch_rows_{end}")
            for end in ("sum", "count")
        )
        return total / count


@pytest.fixture(params=[1, 2], scope="module")
def server(request, repository, tmp_path_factory) -> Iterator[Server]:
    """A service of one worker with two threads, or of two workers with one."""
    workers: int = request.param
    state = tmp_path_factory.mktemp("state")
    settings = {"workers": workers, "threads": 3 - workers, "native": "on", "state": state}
    process = Process(repository, **settings)
    try:
        for _ in range(workers - 1):
            process.until("loaded")
        yield Server(process)
    finally:
        process.end()


def test_requests_over_http(server, alone):
    answers = asyncio.run(ask_all(server.ask, random_batches(3), [JSON, NPY], 8))
    answers.expect_bits_of(alone)
    assert server.mean_batch() > 4


def test_streams_and_their_checksums(server, alone):
    log_prob, checksum = server.stream("target_log_prob")
    top_k, top_k_checksum = server.stream("top_k")
    Answers.of(log_prob, top_k).expect_bits_of(alone)
    assert server.stream("target_log_prob")[1] == checksum
    assert server.stream("top_k")[1] == top_k_checksum


def test_jobs(server, alone):
    file = upload(server.process, input_lines().decode())
    records = [server.job(file, task) for task in ("target_log_prob", "top_k")]
    Answers.of(*records).expect_bits_of(alone)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [7, 5_000])
def test_the_command_line(repository, alone, tmp_path, threads, batch):
    (tmp_path / "in.ndjson").write_bytes(input_lines())
    records = []
    for task in ("target_log_prob", "top_k"):
        output = tmp_path / f"{task}.ndjson"
        arguments = [str(repository / "words"), str(tmp_path / "in.ndjson"), str(output)]
        options = ["--batch", str(batch), "--threads", str(threads), "--k", str(K)]
        assert run(["score", *arguments, "--task", task, "--native", "on", *options]) == 0
        records.append([json.loads(line) for line in output.read_bytes().splitlines()])
    Answers.of(*records).expect_bits_of(alone)


@pytest.mark.parametrize(
    "softmax",
    [random_model(1), random_huffman(11, 8), adaptive(4, (5, 6), hidden=8)],
    ids=["hierarchical", "huffman", "adaptive"],
)
def test_the_numbers_of_other_rows_change_no_bit_of_a_distribution(softmax, tmp_path):
    """Its last digits depend on the number of rows in the batch, and on nothing else of them."""
    exported = exporter.export_model(softmax, exporter.parse_destination(tmp_path / "words"))
    model = load(exported.path)
    rng = np.random.default_rng(1)
    for count in (2, 3, 5, 9, 20, 40):
        row, others = rng.normal(size=8), rng.normal(size=(count - 1, 8))
        bits = set()
        for some in (others, np.sign(others) * 3e38, others * 1e-40, others * 0):
            *_, last = model.score([{"input": one} for one in (*some, row)], "log_probs")
            bits.add(tuple(last["log_probs"]))
        assert len(bits) == 1
