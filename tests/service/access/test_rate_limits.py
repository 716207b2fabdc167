"""Tests of rate limits with a clock of their own: of the service, of keys, of workers together."""

import asyncio
import itertools
import json
import multiprocessing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsoftmax.service import Settings
from hsoftmax.service.access.api_key import UNNAMED_KEY, ApiKey
from hsoftmax.service.access.rate_limits import LocalBuckets, RateLimits
from hsoftmax.service.context import context_of
from hsoftmax.service.errors import RateLimited
from hsoftmax.service.streaming import async_graph_runner
from hsoftmax.service.workers.shared_buckets import SharedBuckets
from hsoftmax.service.workers.shared_record import SharedRecord
from tests.service.conftest import HIDDEN, expect_error, serving

SEARCH = ApiKey("search", frozenset(("read",)), requests_per_second=2, rows_per_second=4)
KEYS = """
{"name": "search", "key": "s", "scopes": ["read", "admin"], "requests_per_second": 2, "rows_per_second": 4}
{"name": "other", "key": "o"}
"""  # noqa: E501
DAYS = itertools.count(1)
TOP_K = "/v1/models/words/top_k"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def limits(clock: Clock, buckets=None, **settings) -> RateLimits:
    return RateLimits(Settings(repository="none", **settings), buckets or LocalBuckets(), clock)


def admits(limits: RateLimits, key: ApiKey | None = None) -> bool:
    try:
        limits.quota(key).take_request()
    except RateLimited:
        return False
    return True


@settings(max_examples=40)
@given(
    rate=st.floats(0.1, 50),
    pauses=st.lists(st.floats(0, 3), min_size=1, max_size=60),
)
def test_no_time_has_more_requests_than_the_rate_and_one_burst(rate, pauses):
    clock, times = Clock(), []
    service = limits(clock, max_requests_per_second=rate)
    for pause in pauses:
        clock.now += pause
        if admits(service):
            times.append(clock.now)
    for i, start in enumerate(times):
        for j, end in enumerate(times[i:], 1):
            assert j <= max(1, rate) + rate * (end - start) + 1e-5


@settings(max_examples=40)
@given(rate=st.floats(0.1, 50), number=st.integers(1, 40))
def test_a_client_that_waits_as_long_as_it_was_told_is_admitted(rate, number):
    clock = Clock()
    service = limits(clock, max_requests_per_second=rate)
    for _ in range(number):
        if not admits(service):
            with pytest.raises(RateLimited) as refused:
                service.quota(None).take_request()
            clock.now += refused.value.retry_after
            assert admits(service)


def test_rows_are_paid_later_and_a_refusal_takes_from_no_limit():
    clock = Clock()
    service = limits(clock, max_rows_per_second=100, max_requests_per_second=3)
    quota = service.quota(SEARCH)
    quota.expect_rows()
    quota.take_rows(12)  # the key has 4 a second: two seconds of debt, and one until the next row
    with pytest.raises(RateLimited, match="at most 4 rows a second of the key 'search', got more"):
        service.quota(SEARCH).expect_rows()
    assert quota.seconds_until_row() == pytest.approx(2.25)
    clock.now += 2.25
    service.quota(SEARCH).expect_rows()
    assert [admits(service, SEARCH) for _ in range(3)] == [True, True, False]
    # The third was refused by its key, so the service has one request left for others.
    assert [admits(service, UNNAMED_KEY) for _ in range(2)] == [True, False]
    with pytest.raises(RateLimited, match="3 requests a second of the whole service, got more"):
        service.quota(None).take_request()


def test_calls_of_a_stream_wait_for_rows(monkeypatch):
    clock = Clock()
    quota = limits(clock).quota(SEARCH)  # 4 rows a second

    async def sleep(seconds: float) -> None:
        clock.now += seconds

    async def run() -> None:
        admission = asyncio.Lock()
        for _ in range(5):
            await async_graph_runner._take_rows_in_time(quota, 8, admission)

    monkeypatch.setattr(async_graph_runner.asyncio, "sleep", sleep)
    asyncio.run(run())
    # 40 rows were taken; 4 were there at first, and the last call leaves a debt of at most 7.
    assert clock.now - 1000.0 == pytest.approx((40 - 4 - 7) / 4)


def test_headers_have_the_form_of_the_draft():
    service = limits(Clock(), max_requests_per_second=0.25)
    quota = service.quota(SEARCH)
    quota.take_request()
    quota.take_rows(3)
    assert dict(quota.headers()) == {
        b"ratelimit-policy": b'"requests";q=1;w=4, "key-requests";q=2;w=1, '
        b'"key-rows";q=4;w=1;qu="rows"',
        b"ratelimit": b'"requests";r=0;t=4, "key-requests";r=1;t=1, "key-rows";r=1;t=1',
    }
    assert limits(Clock()).quota(UNNAMED_KEY) is None


def _take_in_worker(record: SharedRecord, admitted) -> None:
    shared = limits(Clock(), SharedBuckets(record), max_requests_per_second=100)
    admitted.put(sum(admits(shared) for _ in range(80)))


def test_workers_share_a_limit():
    context = multiprocessing.get_context("fork")
    record, admitted = SharedRecord.create(), context.Queue()
    workers = [context.Process(target=_take_in_worker, args=(record, admitted)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert sum(admitted.get(timeout=20) for _ in workers) == 100
    for worker in workers:
        worker.join()
    assert list(json.loads(record.read())) == ["requests "]
    record.close()


@pytest.fixture(scope="module")
def limited(repository, tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(KEYS)
    with serving(repository, api_keys_file=path, max_requests_per_second=50) as client:
        yield client


@pytest.fixture
def clock(limited, monkeypatch) -> Clock:
    """Clock of the service; every bucket is full at first, as each test has a later day."""
    clock = Clock()
    clock.now = next(DAYS) * 86_400.0 + context_of(limited.app).rate_limits.clock()
    monkeypatch.setattr(context_of(limited.app).rate_limits, "clock", clock)
    return clock


def ask(client, key: str, rows: int = 1, **options):
    headers = {"authorization": f"Bearer {key}"}
    return client.post(TOP_K, json={"inputs": [[0.5] * HIDDEN] * rows}, headers=headers, **options)


def test_requests_beyond_the_limit_of_a_key_are_429_with_what_remains(limited, clock):
    first = ask(limited, "s")
    assert first.status_code == 200
    assert first.headers["ratelimit"] == (
        '"requests";r=49;t=1, "key-requests";r=1;t=1, "key-rows";r=3;t=1'
    )
    assert ask(limited, "s").status_code == 200
    third = ask(limited, "s")
    expect_error(third, 429, "rate_limited", "at most 2 requests a second of the key 'search'")
    assert third.headers["retry-after"] == "1"
    assert '"key-requests";r=0;t=1' in third.headers["ratelimit"]
    # Another client, health, metrics and changes of what is served go on.
    assert ask(limited, "o").status_code == 200
    assert limited.get("/healthz/ready").status_code == 200
    bearer = {"authorization": "Bearer s"}
    assert limited.get("/metrics", headers=bearer).status_code == 200
    assert limited.post("/v1/models/words/reload", headers=bearer).status_code == 200
    clock.now += 1
    assert ask(limited, "s").status_code == 200


def test_rows_are_limited_on_every_route_that_computes_rows(limited, clock):
    assert ask(limited, "s", rows=9).status_code == 200  # 4 are there, and 5 are paid later
    clock.now += 1
    refused = ask(limited, "s")
    expect_error(refused, 429, "rate_limited", "at most 4 rows a second of the key 'search'")
    assert refused.headers["retry-after"] == "1"
    tensor = {"name": "hidden", "datatype": "FP32", "shape": [1, HIDDEN], "data": [0.5] * HIDDEN}
    bearer = {"authorization": "Bearer s"}
    query = {"inputs": [tensor], "outputs": [{"name": "log_probs"}]}
    answer = limited.post("/v2/models/words/infer", json=query, headers=bearer)
    expect_error(answer, 429, "rate_limited", "rows a second")
    clock.now += 1
    stream = "/v1/models/words/score?task=log_probs"
    rows = "\n".join(json.dumps({"id": i, "input": [0.5] * HIDDEN}) for i in range(3))
    assert limited.post(stream, content=rows, headers=bearer).status_code == 200
    expect_error(limited.post(stream, content=rows, headers=bearer), 429, "rate_limited", "rows")
    clock.now += 1
    stream, rows = stream.replace("log_probs", "hidden"), rows + "\n" + rows.splitlines()[0]
    assert limited.post(stream, content=rows, headers=bearer).status_code == 200
    expect_error(limited.post(stream, content=rows, headers=bearer), 429, "rate_limited", "rows")
