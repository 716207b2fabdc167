"""`score` of the clients and in process: a record or an error for each row, in order."""

import asyncio
import hashlib
import json

import httpx2
import numpy as np
import pytest

import hsoftmax
from hsoftmax import Client, ClientError
from tests.service.conftest import HIDDEN, TARGETS

RNG = np.random.default_rng(5)


def make_rows(count: int) -> list[dict]:
    hidden = RNG.normal(size=(count, HIDDEN)).astype(np.float32)
    return [{"id": i, "input": row, "target": i % TARGETS} for i, row in enumerate(hidden)]


@pytest.fixture(scope="module")
def local(repository):
    return hsoftmax.load(repository / "words")


@pytest.mark.parametrize("rows_at_once", [1, 7, 512])
@pytest.mark.parametrize(
    ("task", "parameters"),
    [("target_log_prob", {}), ("probabilities", {}), ("top_k", {"k": 2, "threshold": 0.2}),
     ("log_probs", {}), ("top_k", {}), ("hidden", {})],
)  # fmt: skip
def test_records_are_the_same_over_http_and_in_process(
    client, async_client, local, task, parameters, rows_at_once
):
    rows = make_rows(20)
    rows[3]["input"] = [1.0]
    rows[15] = {"id": "late"}
    options = {"rows_at_once": rows_at_once, **parameters}
    expected = list(local.score(iter(rows), task, **options))
    assert len(expected) == 20
    assert [r["id"] for r in expected] == [*range(15), "late", *range(16, 20)]
    assert [r["line"] for r in expected if "line" in r] == [4, 16]
    expect_close(list(client.model("words").score(iter(rows), task, **options)), expected)

    async def ask() -> list[dict]:
        async with async_client() as client:
            return [record async for record in client.model("words").score(rows, task, **options)]

    expect_close(asyncio.run(ask()), expected)


def expect_close(got: list[dict], expected: list[dict]) -> None:
    """Assert equal records; numbers may differ in the last bits, as other batches were run."""
    assert [list(record) for record in got] == [list(record) for record in expected]
    for record, other in zip(got, expected, strict=True):
        for name, value in record.items():
            is_number = isinstance(value, float) or (
                isinstance(value, list) and isinstance((value or [0])[0], float)
            )
            assert value == (pytest.approx(other[name], rel=1e-5) if is_number else other[name])


def test_records_have_the_values_of_queries(local):
    rows = make_rows(9)
    got = [record["log_prob"] for record in local.score(rows)]
    inputs = np.stack([row["input"] for row in rows])
    expected = local.probabilities(inputs, [row["target"] for row in rows], log=True)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_rows_are_read_as_records_are_taken(client, local):
    for model in (client.model("words"), local):
        read = []
        rows = (read.append(row["id"]) or row for row in make_rows(100))
        records = model.score(rows, rows_at_once=10)
        assert next(records)["id"] == 0
        assert len(read) == 10


def test_no_rows_give_no_records(client, local):
    assert list(client.model("words").score([])) == list(local.score([])) == []


@pytest.mark.parametrize("change", [b"", b'{"summary": {"sha256": "0"}}\n'])
def test_a_stream_that_is_not_whole_is_an_error(change):
    record = b'{"id":1,"log_prob":-1.0}\n'
    with (
        Client(
            "http://service",
            transport=httpx2.MockTransport(lambda r: httpx2.Response(200, content=record + change)),
        ) as client,
        pytest.raises(ClientError, match="score: expected"),
    ):
        list(client.model("words").score(make_rows(1)))


def test_a_whole_stream_is_none():
    record = b'{"id":1,"log_prob":-1.0}\n'
    summary = {"summary": {"sha256": hashlib.sha256(record).hexdigest()}}
    content = record + json.dumps(summary).encode() + b"\n"
    with Client(
        "http://service",
        transport=httpx2.MockTransport(lambda r: httpx2.Response(200, content=content)),
    ) as client:
        assert list(client.model("words").score(make_rows(1))) == [{"id": 1, "log_prob": -1.0}]
