"""Jobs of the clients: a file goes up, its rows are scored, and the records come down."""

import asyncio
import inspect
import json
from contextlib import suppress

import httpx2
import numpy as np
import pytest

from hsoftmax import Client, ClientError
from hsoftmax.client import AsyncJobs, Jobs
from tests.service.conftest import HIDDEN, TARGETS


@pytest.fixture
def file(tmp_path):
    """40 rows, of which the fourth is wrong."""
    hidden = np.random.default_rng(3).normal(size=(40, HIDDEN)).astype(np.float32)
    rows = [{"id": i, "input": row.tolist(), "target": i % TARGETS} for i, row in enumerate(hidden)]
    rows[3]["target"] = TARGETS
    (tmp_path / "rows.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "rows.ndjson"


def test_a_job_scores_a_file(client, file, tmp_path):
    jobs = client.jobs
    job = jobs.create(jobs.upload(file), "words", "target_log_prob", version=1)
    assert (job.model, job.version, job.task, job.ended) == ("words", "1", "target_log_prob", False)
    done = jobs.wait(job.id, timeout_s=60)
    assert (done.status, done.rows, done.scored, done.failed) == ("completed", 40, 39, 1)
    assert done.ended
    assert done.errors == ()
    assert done.summary["scored"] == 39
    output = jobs.download(done.output_file_id, tmp_path / "out.ndjson")
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record["id"] for record in records] == [i for i in range(40) if i != 3]
    errors = jobs.download(done.error_file_id, str(tmp_path / "errors.ndjson"))
    assert json.loads(errors.read_text())["code"] == "target_out_of_range"
    assert {path.name for path in tmp_path.iterdir()} == {
        "rows.ndjson", "out.ndjson", "errors.ndjson"
    }  # fmt: skip


def test_a_job_in_asyncio(async_client, file, tmp_path):
    async def score() -> tuple:
        async with async_client() as client:
            jobs = client.jobs
            job = await jobs.create(
                await jobs.upload(file), "words", "top_k", k=2, threshold=0.1, output_format="csv"
            )
            done = await jobs.wait(job.id)
            path = await jobs.download(done.output_file_id, tmp_path / "out.csv")
            return done, path

    done, path = asyncio.run(score())
    assert (done.status, done.scored) == ("completed", 40)  # top_k reads no target
    assert path.read_text().startswith("id,targets,labels,probabilities,exact,blocks,truncated")


def test_a_job_that_cannot_be_is_refused(client, file):
    with pytest.raises(ClientError, match="422: task: expected one of") as raised:
        client.jobs.create(client.jobs.upload(file), "words", "nope")
    assert raised.value.code == "invalid_query"
    with pytest.raises(ClientError, match="404"):
        client.jobs.get("batch_none")
    with pytest.raises(ClientError, match="404"):
        client.jobs.download("file-none", file.with_name("none"))
    assert not file.with_name("none").exists()


def test_a_job_is_cancelled(client, file):
    job = client.jobs.create(client.jobs.upload(file), "words")
    with suppress(ClientError):  # it may have ended before
        client.jobs.cancel(job.id)
    assert client.jobs.wait(job.id).status in ("cancelled", "completed")


def job_json(status: str) -> dict:
    return {"id": "b", "status": status, "model": "m", "version": "1", "task": "top_k",
            "request_counts": {"total": 0, "completed": 0, "failed": 0}, "progress": 0.0,
            "errors": {"data": [{"message": "why"}]}, "output_file_id": None,
            "error_file_id": None, "summary": None}  # fmt: skip


def test_waiting_ends_after_its_time():
    answer = httpx2.MockTransport(lambda r: httpx2.Response(200, json=job_json("in_progress")))
    with (
        Client("http://service", transport=answer) as client,
        pytest.raises(ClientError, match=r"b: expected its end in 0\.1 s, got in_progress"),
    ):
        client.jobs.wait("b", timeout_s=0.1)


def test_a_failed_job_says_why():
    answer = httpx2.MockTransport(lambda r: httpx2.Response(200, json=job_json("failed")))
    with Client("http://service", transport=answer) as client:
        assert client.jobs.wait("b").errors == ("why",)


def test_a_job_that_is_created_again_has_the_same_key(monkeypatch):
    keys = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        keys.append(request.headers["idempotency-key"])
        if len(keys) == 1:
            return httpx2.Response(429, headers={"retry-after": "0"})
        return httpx2.Response(200, json=job_json("validating"))

    with Client("http://service", transport=httpx2.MockTransport(answer)) as client:
        client.jobs.create("file-1", "words")
        client.jobs.create("file-1", "words")
    assert keys[0] == keys[1] != keys[2]


def test_a_job_between_stores_names_no_file():
    sent = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(json.loads(request.read()))
        return httpx2.Response(200, json=job_json("validating"))

    urls = {"input_url": "s3://b/rows.csv", "output_url": "s3://b/out.csv"}
    with Client("http://service", transport=httpx2.MockTransport(answer)) as client:
        client.jobs.create(None, "words", version=2, **urls)
    assert sent == [{"endpoint": "/v1/models/words/score", "task": "target_log_prob",
                     "completion_window": "24h", "version": "2", **urls}]  # fmt: skip


def test_an_upload_is_not_sent_again_after_a_broken_connection(file):
    sent = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.read())
        if len(sent) == 1:
            return httpx2.Response(503, headers={"retry-after": "0"})
        raise httpx2.ReadError("reset")

    with (
        Client("http://service", transport=httpx2.MockTransport(answer)) as client,
        pytest.raises(ClientError, match="expected an answer, got: reset"),
    ):
        client.jobs.upload(file)
    assert len(sent) == 2
    assert all(file.read_bytes() in body for body in sent)


def test_the_methods_are_the_same():
    for name in ("upload", "create", "get", "wait", "cancel", "download"):
        expected = inspect.signature(getattr(Jobs, name), eval_str=True)
        got = inspect.signature(getattr(AsyncJobs, name), eval_str=True)
        assert got.parameters == expected.parameters
