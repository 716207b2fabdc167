"""Requests of the clients: what travels, what is sent again and when, and how errors are told."""

import asyncio
import io
import json
from types import SimpleNamespace

import httpx2
import numpy as np
import pytest

from hsoftmax import AsyncClient, Client, ClientError
from hsoftmax.client import async_client as async_module
from hsoftmax.client import sync_client as sync_module
from hsoftmax.client.retries import RetryPolicy
from tests.service.conftest import HIDDEN

ROWS = np.ones((2, HIDDEN), dtype=np.float32)
TOP_K = {"results": [{"targets": [1], "log_probabilities": [None], "exact": True, "blocks": 1}]}


class Service:
    """Answers requests with what it is given in turn, and keeps the requests."""

    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, **options) -> Client:
        return Client("http://service", transport=httpx2.MockTransport(self), **options)


def busy(status: int, **headers: str) -> httpx2.Response:
    return httpx2.Response(status, json={"error": "busy", "code": "overloaded"}, headers=headers)


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """The pauses that the clients make, none of which lasts."""
    made: list[float] = []

    async def sleep(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr(sync_module, "time", SimpleNamespace(sleep=made.append))
    monkeypatch.setattr(async_module, "asyncio", SimpleNamespace(sleep=sleep))
    return made


def ask(service: Service, is_async: bool, **options) -> object:
    """The answer of a GET with either client."""
    if not is_async:
        with service.client(**options) as client:
            return client.get("/healthz/ready")

    async def get() -> object:
        transport = httpx2.MockTransport(service)
        async with AsyncClient("http://service", transport=transport, **options) as client:
            return await client.get("/healthz/ready")

    return asyncio.run(get())


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again_when_it_says(pauses, is_async, status):
    service = Service(
        busy(status, **{"retry-after": "3"}), busy(status), httpx2.Response(200, json="ok")
    )
    assert ask(service, is_async) == "ok"
    assert pauses == [3.0, 0.8]


@pytest.mark.parametrize("is_async", [False, True])
def test_tries_are_bounded(pauses, is_async):
    service = Service(*[busy(429, **{"retry-after": "7"}) for _ in range(3)])
    with pytest.raises(ClientError, match="http://service/healthz/ready: 429: busy") as raised:
        ask(service, is_async, max_tries=3)
    assert (raised.value.status, raised.value.code) == (429, "overloaded")
    assert pauses == [7.0, 7.0]


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 500, 502, 504, 507])
def test_other_answers_are_not_asked_for_again(pauses, status):
    service = Service(busy(status))
    with pytest.raises(ClientError):
        ask(service, False)
    assert not pauses


@pytest.mark.parametrize(
    ("retry_after", "pause"),
    [("0", 0.0), ("5", 5.0), ("99999", 60.0), (None, 0.4), ("soon", 0.4), ("-1", 0.4), ("٣", 0.4)],
)
def test_a_pause_is_as_long_as_the_service_says_and_bounded(retry_after, pause):
    assert RetryPolicy(2).pause_after_answer(1, 503, retry_after) == pause
    assert RetryPolicy(2).pause_after_answer(2, 503, retry_after) is None


@pytest.mark.parametrize("is_async", [False, True])
def test_a_connection_that_fails_is_tried_three_times(pauses, is_async):
    service = Service(*[httpx2.ConnectError("refused") for _ in range(3)])
    with pytest.raises(ClientError, match="http://service: expected an answer, got: refused"):
        ask(service, is_async)
    assert len(service.requests) == 3
    again = Service(httpx2.ReadError("reset"), httpx2.Response(200, json="ok"))
    assert ask(again, is_async) == "ok"


def test_a_request_that_takes_too_long_is_not_sent_again(pauses):
    service = Service(httpx2.ReadTimeout("timed out"))
    with pytest.raises(ClientError, match="expected an answer, got: timed out"):
        ask(service, False)
    assert not pauses


def test_the_key_is_sent():
    service = Service(httpx2.Response(200, json=1), httpx2.Response(200, json=1))
    ask(service, False, api_key="secret")
    ask(service, False)
    assert [r.headers.get("authorization") for r in service.requests] == ["Bearer secret", None]


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("key", "got"),
    [("secré", "one beyond ASCII at place 5 of 5"), ("se\ncret", "a control character at place 3")],
)
def test_a_key_that_no_header_can_carry_is_refused_at_once_and_not_shown(kind, key, got):
    with pytest.raises(ClientError, match=got) as refused:
        kind(api_key=key)
    assert "api_key: expected printable ASCII" in str(refused.value)
    assert key[:2] not in str(refused.value).replace("service", "")


def test_matrices_travel_as_npy_both_ways():
    stream = io.BytesIO()
    np.save(stream, np.log(np.full((2, 3), 0.25, dtype=np.float32)))
    service = Service(httpx2.Response(200, content=stream.getvalue()))
    with service.client() as client:
        got = client.model("a b/c", 2).distribution(ROWS.tolist())
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, 0.25, rtol=1e-6)
    (request,) = service.requests
    assert request.url.raw_path == b"/v1/models/a%20b%2Fc/probabilities?log=true&version=2"
    assert request.headers["content-type"] == request.headers["accept"] == "application/x-npy"
    sent = np.load(io.BytesIO(request.content))
    assert sent.dtype == np.float32
    np.testing.assert_array_equal(sent, ROWS)


@pytest.mark.parametrize(
    ("targets", "params"),
    [
        ([3, 5], [("targets", "3,5")]),
        (np.array([3, 5]), [("targets", "3,5")]),
        (np.array([[3, 1], [5, 2]]), [("targets", "3,1"), ("targets", "5,2")]),
        ([[3], [5]], [("targets", "3"), ("targets", "5")]),
    ],
)
def test_few_numbers_travel_in_the_url(targets, params):
    stream = io.BytesIO()
    np.save(stream, np.zeros(np.array(targets).shape, dtype=np.float32))
    service = Service(httpx2.Response(200, content=stream.getvalue()))
    with service.client() as client:
        client.model("words").probabilities(ROWS, targets)
    assert list(service.requests[0].url.params.multi_items()) == [*params, ("log", "true")]


@pytest.mark.parametrize(
    "targets", [["a", 5], [[3], []], [[3, 1], [5]], [[], []], [[3, 1]], [[7] * 3000] * 2]
)
def test_other_targets_travel_as_json(targets):
    answer = {"log_probabilities": targets if isinstance(targets[0], list) else [0.0, 0.0]}
    service = Service(httpx2.Response(200, json=answer))
    with service.client() as client:
        client.model("words").probabilities(ROWS, targets)
    (request,) = service.requests
    assert json.loads(request.content) == {
        "inputs": ROWS.tolist(), "targets": targets, "log": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    "inputs", [["a text", "another"], [["we", "the"], ["of"]], {"tokens": [[1, 2], [3]]}]
)
def test_texts_and_arrays_by_name_travel_as_they_are(inputs):
    service = Service(httpx2.Response(200, json=TOP_K))
    with service.client() as client:
        (result,) = client.model("words", 3).top_k(inputs, 1, threshold=0.5)
    assert result.probabilities.tolist() == [0.0]
    (request,) = service.requests
    assert json.loads(request.content) == {
        "inputs": inputs, "k": 1, "threshold": 0.5, "log": True, "version": "3",
    }  # fmt: skip


def test_labels_are_looked_up_in_urls_of_bounded_length():
    def answer(request: httpx2.Request) -> httpx2.Response:
        assert len(request.url.raw_path) < 8192
        labels = request.url.params.get_list("label")
        return httpx2.Response(200, json={"targets": [7] * len(labels), "labels": labels,
                                          "next": None})  # fmt: skip

    labels = [f"{'ü' * (i % 300)}{i}" for i in range(500)]
    with Client("http://service", transport=httpx2.MockTransport(answer)) as client:
        assert client.model("words").targets_of(labels).tolist() == [7] * 500


@pytest.mark.parametrize(
    ("content", "message", "code"),
    [
        (b'{"error": "no", "code": "c"}', "404: no", "c"),
        (b'{"error": {"message": "no", "code": "c"}}', "404: no", "c"),
        (b"<html>", "404", ""),
        (b"[]", "404", ""),
        (b"", "404", ""),
    ],
)
def test_an_error_has_the_sentence_of_the_service(content, message, code):
    service = Service(httpx2.Response(404, content=content))
    with service.client() as client, pytest.raises(ClientError) as raised:
        client.get("/v1/models/x")
    assert str(raised.value) == f"http://service/v1/models/x: {message}"
    assert (raised.value.code, raised.value.status) == (code, 404)


def test_an_answer_of_another_bundle_is_an_error():
    service = Service(httpx2.Response(200, json={}, headers={"x-hsoftmax-digest": "b" * 64}))
    with service.client() as client, pytest.raises(ClientError, match="expected answers of bundle"):
        client.post("/v1/models/words/top_k", {}, digest="a" * 64)


def test_a_service_that_never_becomes_ready_is_an_error():
    service = Service(*[busy(503) for _ in range(100)])
    with service.client() as client, pytest.raises(ClientError, match="expected ready, got"):
        client.wait_until_ready(0.06)
