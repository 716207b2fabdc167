"""Uses OpenAI's client in Python, sync and async. Arguments: the server's URL, and a folder."""

import asyncio
import io
import json
import sys
import time
from pathlib import Path

import openai

URL, FOLDER = sys.argv[1], Path(sys.argv[2])
CLIENT = openai.OpenAI(base_url=f"{URL}/v1", api_key="any")
ROW = [0.5] * 8
PROBABILITIES = "/v1/models/words/probabilities"


def line(i: int, url: str, body: object) -> bytes:
    request = {"custom_id": f"r{i}", "method": "POST", "url": url, "body": body}
    return json.dumps(request).encode() + b"\n"


QUERIES = b"".join(line(i, PROBABILITIES, {"inputs": [ROW], "targets": [i]}) for i in range(12))


def refused(kind: type, call, code: str, sentence: str, param: str | None = None):
    """The error has the sentence in its text, and the code in its field."""
    began = time.monotonic()
    try:
        call()
    except kind as error:
        assert sentence in str(error), str(error)
        assert error.code == code, error.code
        assert error.param == param, error.param
        assert error.type.endswith("_error")
        assert error.request_id
        assert error.body["message"] in str(error)
        assert time.monotonic() - began < 10, "the client waited"
        return error
    raise AssertionError(f"expected {kind}")


def until_ended(id: str, *statuses: str):
    ended = statuses or ("completed", "failed", "expired", "cancelled")
    for _ in range(600):
        batch = CLIENT.batches.retrieve(id)
        if batch.status in ended:
            return batch
        time.sleep(0.05)
    raise AssertionError(batch)


def check_models():
    assert [model.id for model in CLIENT.models.list()] == ["plain", "words"]
    model = CLIENT.models.retrieve("words")
    assert (model.id, model.object, model.owned_by) == ("words", "model", "hsoftmax")
    assert model.created > 1e9


def check_files():
    path = FOLDER / "queries.jsonl"
    path.write_bytes(QUERIES)
    sources = (QUERIES, io.BytesIO(QUERIES), path, ("q.jsonl", QUERIES), path.open("rb"))
    for file in sources:
        created = CLIENT.files.create(file=file, purpose="batch")
        assert (created.bytes, created.status) == (len(QUERIES), "processed")
        assert CLIENT.files.content(created.id).read() == QUERIES
    expiry = {"anchor": "created_at", "seconds": 3600}
    file = CLIENT.files.create(file=QUERIES, purpose="batch", expires_after=expiry)
    assert file.expires_at == file.created_at + 3600
    assert CLIENT.files.retrieve(file.id) == file
    assert CLIENT.files.wait_for_processing(file.id).status == "processed"
    assert len(list(CLIENT.files.list(limit=2))) == 6  # three pages
    assert CLIENT.files.delete(file.id).deleted


def check_errors():
    refused(
        openai.NotFoundError,
        lambda: CLIENT.files.retrieve("file-0"),
        "unknown_file",
        "expected one that is here",
    )
    refused(
        openai.NotFoundError,
        lambda: CLIENT.batches.cancel("batch_0"),
        "unknown_batch",
        "expected one that is here",
    )
    refused(
        openai.UnprocessableEntityError,
        lambda: CLIENT.files.create(file=b"x", purpose="fine-tune"),
        "invalid_query",
        "expected 'batch', got 'fine-tune'",
        "purpose",
    )
    refused(
        openai.UnprocessableEntityError,
        lambda: CLIENT.files.create(file=("rows.exe", b"x"), purpose="batch"),
        "invalid_query",
        "expected a name ending in",
        "file",
    )
    file = CLIENT.files.create(file=QUERIES, purpose="batch").id
    create = CLIENT.batches.create
    refused(
        openai.NotFoundError,
        lambda: create(
            input_file_id=file, endpoint="/v1/models/nonesuch/score", completion_window="24h"
        ),
        "unknown_bundle",
        "nonesuch",
    )
    refused(
        openai.UnprocessableEntityError,
        lambda: create(input_file_id=file, endpoint="/v1/embeddings", completion_window="24h"),
        "invalid_query",
        "expected /v1/models/{name}/score",
        "endpoint",
    )
    refused(
        openai.UnprocessableEntityError,
        lambda: create(input_file_id=file, endpoint=PROBABILITIES, completion_window="1y"),
        "invalid_query",
        "expected a number and",
        "completion_window",
    )


def check_batch():
    bad = line(12, PROBABILITIES, {"inputs": [ROW], "targets": [99]})
    file = CLIENT.files.create(file=QUERIES + bad, purpose="batch")
    batch = CLIENT.batches.create(
        input_file_id=file.id,
        endpoint=PROBABILITIES,
        completion_window="24h",
        metadata={"a": "b"},
        output_expires_after={"anchor": "created_at", "seconds": 7200},
    )
    done = until_ended(batch.id)
    counts = done.request_counts
    # Targets are 0 to 10, so that 11 and 99 are out of range.
    assert (counts.total, counts.completed, counts.failed) == (13, 11, 2), done
    output = CLIENT.files.retrieve(done.output_file_id)
    assert output.expires_at == output.created_at + 7200
    lines = [json.loads(one) for one in CLIENT.files.content(output.id).text.splitlines()]
    assert [one["custom_id"] for one in lines] == [f"r{i}" for i in range(11)]
    for i, one in enumerate(lines):
        assert one["error"] is None
        assert one["id"].startswith("batch_req_")
        assert one["response"]["status_code"] == 200
        assert one["response"]["request_id"]
        alone = CLIENT.post(
            f"{URL}{PROBABILITIES}", cast_to=object, body={"inputs": [ROW], "targets": [i]}
        )
        assert one["response"]["body"] == alone
    errors = CLIENT.files.content(done.error_file_id).text.splitlines()
    for one in map(json.loads, errors):
        assert one["response"]["status_code"] == 422
        assert one["response"]["body"]["error"]["code"] == "target_out_of_range"


def slow_file() -> str:
    """A file whose job takes long enough to be cancelled."""
    rows = b"".join(
        json.dumps({"custom_id": f"r{i}", "input": ROW}).encode() + b"\n" for i in range(20_000)
    )
    return CLIENT.files.create(file=rows, purpose="batch").id


def check_cancel_and_too_many():
    file = slow_file()
    extra = {"task": "sample", "num_samples": 2000}

    def create():
        return CLIENT.batches.create(
            input_file_id=file,
            endpoint="/v1/models/words/score",
            completion_window="24h",
            extra_body=extra,
        )

    jobs = [create() for _ in range(3)]
    refused(openai.RateLimitError, create, "too_many_jobs", "expected at most 3")
    until_ended(jobs[0].id, "in_progress")
    refused(openai.ConflictError, lambda: CLIENT.files.delete(file), "file_in_use", jobs[0].id)
    for job in jobs:
        assert CLIENT.batches.cancel(job.id).status in ("cancelling", "cancelled")
    for job in jobs:
        assert until_ended(job.id).status == "cancelled"
    done = CLIENT.batches.list(limit=1).data[0]
    assert done.id == jobs[-1].id
    assert len({batch.id for batch in CLIENT.batches.list(limit=2)}) == 4
    assert CLIENT.files.delete(file).deleted


async def check_async():
    async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key="any") as client:
        assert [model.id async for model in client.models.list()] == ["plain", "words"]
        file = await client.files.create(file=io.BytesIO(QUERIES), purpose="batch")
        batch = await client.batches.create(
            input_file_id=file.id, endpoint=PROBABILITIES, completion_window="24h"
        )
        while batch.status not in ("completed", "failed"):
            await asyncio.sleep(0.05)
            batch = await client.batches.retrieve(batch.id)
        assert batch.request_counts.completed == 11
        content = await client.files.content(batch.output_file_id)
        assert len(content.text.splitlines()) == 11
        try:
            await client.files.retrieve("file-0")
        except openai.NotFoundError as error:
            assert error.code == "unknown_file"
            assert "expected one" in str(error)
        else:
            raise AssertionError("expected an error")
        assert len([one async for one in client.batches.list(limit=2)]) == 5


check_models()
check_files()
check_errors()
check_batch()
check_cancel_and_too_many()
asyncio.run(check_async())
