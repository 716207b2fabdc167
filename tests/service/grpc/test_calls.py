"""Every call: keys, limits, deadlines, cancellation, errors, log."""

import asyncio
import io
import json
import threading

import grpc
import pytest

from hsoftmax.service.engine import GraphCall
from hsoftmax.service.engine.call import Lane
from hsoftmax.service.engine.scheduler import Scheduler
from hsoftmax.service.errors import Overloaded
from hsoftmax.service.grpc import slow_messages
from hsoftmax.service.grpc.grpc_call import GrpcCall
from hsoftmax.service.grpc.infer import _options
from hsoftmax.service.grpc.messages import (
    HEALTH_SERVICE,
    SERVICE,
    ModelInferRequest,
    ModelInferResponse,
    message_type,
)
from hsoftmax.service.grpc.method import Method
from hsoftmax.service.http.request_context import new_request_context
from hsoftmax.service.logging import json_log
from hsoftmax.service.middleware.request_log import RequestRecorder

from .conftest import expect_status, raw_request, serving_grpc, until

KEY = ("authorization", "Bearer secret")


@pytest.fixture(scope="module")
def small(repository):
    """A service with keys and small limits, and methods for the tests."""
    methods = [
        Method("/test/echo", echo),
        Method("/test/broken", broken),
        Method("/test/wait", wait),
    ]
    limits = {"max_body_bytes": 2**20, "max_bodies_bytes": 2**21, "body_timeout": 1.5}
    with serving_grpc(
        repository, methods, api_keys="secret", admin_key="admin", max_streams=1,
        max_queue_requests=1, stream_timeout=1.5,
        max_rows=1000,
        max_targets=1000, **limits,
    ) as service:  # fmt: skip
        yield service


async def echo(call: GrpcCall) -> None:
    message = await call.parse(await call.receive_bytes(), ModelInferRequest)
    await call.send(ModelInferResponse(id=message.id))


async def broken(call: GrpcCall) -> None:
    raise RuntimeError("a secret of the service")


waits: list[str] = []


async def wait(call: GrpcCall) -> None:
    waits.append("waiting")
    try:
        await asyncio.sleep(60)
    finally:
        waits.append("ended")


@pytest.mark.parametrize(
    "metadata", [(), [("authorization", "Bearer wrong")], [("x-key", "secret")]]
)
@pytest.mark.parametrize("path", [f"/{SERVICE}/ModelInfer", "/test/echo", "/no/such", "/x"])
def test_a_call_needs_a_key(small, path, metadata):
    with expect_status(grpc.StatusCode.UNAUTHENTICATED, "key: expected") as expected:
        small.unary(path, ModelInferResponse)(ModelInferRequest(), metadata=metadata)
    assert expected.trailers["x-hsoftmax-code"] == "unauthorized"


@pytest.mark.parametrize("key", ["secret", "admin"])
def test_a_key_opens_all_methods(small, key):
    metadata = [("authorization", f"Bearer {key}")]
    assert small.call("ServerMetadata", metadata=metadata).name == "hsoftmax"


def test_health_needs_no_key(small):
    assert small.call("ServerLive").live
    assert small.call("ServerReady").ready
    response_type = message_type("ServerReadyResponse")
    check = small.unary(f"/{HEALTH_SERVICE}/Check", response_type)
    assert check(message_type("ServerReadyRequest")())


def test_an_unknown_method_is_unimplemented(small):
    with expect_status(grpc.StatusCode.UNIMPLEMENTED, "method: expected one of this service"):
        small.unary("/no/such", ModelInferResponse)(ModelInferRequest(), metadata=[KEY])


def test_a_message_has_at_most_the_bytes_of_a_body(small):
    echoed = small.unary("/test/echo", ModelInferResponse)
    fits = ModelInferRequest(id="a", raw_input_contents=[b"x" * (2**20 - 7)])
    assert len(fits.SerializeToString()) == 2**20
    assert echoed(fits, metadata=[KEY]).id == "a"
    larger = ModelInferRequest(id="a", raw_input_contents=[b"x" * (2**20 - 6)])
    with expect_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max"):
        echoed(larger, metadata=[KEY])


def test_a_compressed_message_is_bounded_by_what_it_becomes(small):
    echoed = small.unary("/test/echo", ModelInferResponse)
    request = ModelInferRequest(id="a", raw_input_contents=[bytes(2**19)])
    assert echoed(request, metadata=[KEY], compression=grpc.Compression.Gzip).id == "a"
    bomb = ModelInferRequest(raw_input_contents=[bytes(2**26)])
    with expect_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max"):
        echoed(bomb, metadata=[KEY], compression=grpc.Compression.Gzip)


def test_bytes_that_are_no_message_are_refused(small):
    with expect_status(
        grpc.StatusCode.INVALID_ARGUMENT, "message: expected one of inference.proto"
    ):
        small.unary("/test/echo", ModelInferResponse)(b"\xff\xff", metadata=[KEY])


def test_a_message_of_too_many_fields_is_refused(small):
    inputs = b"\x2a\x00" * 2**18  # empty tensors: two bytes here, a hundred in memory
    with expect_status(grpc.StatusCode.INVALID_ARGUMENT, "fields, got more"):
        small.unary("/test/echo", ModelInferResponse)(inputs, metadata=[KEY])


def test_a_call_without_a_message_is_refused(small):
    call = small.stream("/test/echo", ModelInferResponse)(iter([]), metadata=[KEY])
    with expect_status(grpc.StatusCode.INVALID_ARGUMENT, "message: expected one, got none"):
        next(call)


class Stalled:
    """An iterator of messages that has none yet, until `end`."""

    def __init__(self):
        self._ended = threading.Event()

    def __iter__(self):
        return self

    def __next__(self):
        self._ended.wait(20)
        raise StopIteration

    def end(self):
        self._ended.set()


def test_a_message_that_never_arrives_ends_its_call(small):
    stalled = Stalled()
    call = small.stream("/test/echo", ModelInferResponse)(stalled, metadata=[KEY])
    with expect_status(
        grpc.StatusCode.DEADLINE_EXCEEDED, "message: expected all of it within 1.5 s"
    ):
        next(call)
    stalled.end()


def test_messages_that_do_not_arrive_take_no_more_than_the_budget_of_bodies(small, monkeypatch):
    monkeypatch.setattr(slow_messages, "_QUICK_S", 0.1)
    stalled = [Stalled() for _ in range(3)]  # the budget is twice the largest body
    calls = [small.stream("/test/echo", ModelInferResponse)(one, metadata=[KEY]) for one in stalled]
    codes = [call.code() for call in calls]
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 1
    assert codes.count(grpc.StatusCode.DEADLINE_EXCEEDED) == 2
    for one in stalled:
        one.end()
    assert small.context.body_budget.reserved == 0


def test_a_stream_that_is_idle_ends(small):
    stalled = Stalled()
    call = small.stream(f"/{SERVICE}/ModelStreamInfer", ModelInferResponse)(stalled, metadata=[KEY])
    assert call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    stalled.end()


def test_streams_are_limited(small):
    path, stalled = f"/{SERVICE}/ModelStreamInfer", Stalled()
    first = small.stream(path, ModelInferResponse)(stalled, metadata=[KEY])
    until(lambda: small.server._handler._calls == 1)
    second = small.stream(path, ModelInferResponse)(iter([]), metadata=[KEY])
    with expect_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "streams: expected at most 1") as got:
        next(second)
    assert (got.trailers["retry-after"], got.trailers["grpc-retry-pushback-ms"]) == ("5", "5000")
    first.cancel()
    stalled.end()
    until(lambda: small.server._handler._calls == 0)


def test_calls_are_limited_but_not_probes(small):
    waiting = small.unary("/test/wait", ModelInferResponse)
    calls = [waiting.future(ModelInferRequest(), metadata=[KEY]) for _ in range(4)]
    until(lambda: small.server._handler._calls == 4)
    with expect_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "calls: expected at most 4"):
        small.call("ServerMetadata", metadata=[KEY])
    assert small.call("ServerLive").live
    for call in calls:
        call.cancel()
    until(lambda: small.server._handler._calls == 0)


def test_a_client_that_leaves_ends_its_call(small):
    waits.clear()
    call = small.unary("/test/wait", ModelInferResponse).future(ModelInferRequest(), metadata=[KEY])
    until(lambda: waits == ["waiting"])
    call.cancel()
    until(lambda: waits == ["waiting", "ended"])


def test_a_deadline_ends_its_call(small):
    waits.clear()
    with expect_status(grpc.StatusCode.DEADLINE_EXCEEDED):
        small.unary("/test/wait", ModelInferResponse)(
            ModelInferRequest(), metadata=[KEY], timeout=0.3
        )
    until(lambda: waits == ["waiting", "ended"])


def test_a_fault_of_the_service_shows_nothing_of_it(small):
    with expect_status(grpc.StatusCode.INTERNAL, "the service failed to answer") as expected:
        small.unary("/test/broken", ModelInferResponse)(ModelInferRequest(), metadata=[KEY])
    assert expected.trailers["x-hsoftmax-code"] == "internal"


def test_an_answer_that_is_not_taken_ends_its_call(repository):
    async def send_much(call: GrpcCall) -> None:
        while True:
            await call.send(ModelInferResponse(raw_output_contents=[bytes(2**20)]))

    ended: list[str] = []

    async def much(call: GrpcCall) -> None:
        try:
            await send_much(call)
        finally:
            ended.append(call.path)

    with serving_grpc(repository, [Method("/test/much", much)], body_timeout=0.5) as service:
        call = service.stream("/test/much", ModelInferResponse)(iter([]))
        until(lambda: ended)
        call.cancel()


class FakeContext:
    """The part of a call's context that its deadline comes from."""

    def __init__(self, left):
        self._left = left

    def time_remaining(self):
        return self._left


@pytest.mark.parametrize(
    ("left", "header", "expected"),
    [
        (None, None, None), (5.0, None, 5.0), (None, b"2000", 2.0), (5.0, b"2000", 2.0),
        (1.0, b"2000", 1.0), (1e9, None, 3600.0), (0.0, None, 0.0),
    ],
)  # fmt: skip
def test_the_timeout_of_a_graph_is_that_of_the_deadline_or_of_the_metadata(left, header, expected):
    headers = {} if header is None else {b"x-hsoftmax-timeout-ms": header}
    call = GrpcCall(None, "/test", FakeContext(left), new_request_context(headers), None, None)
    assert _options(call).timeout == expected


def test_an_overloaded_lane_refuses_with_the_time_to_wait(service, hidden, monkeypatch):
    def admit(task: str) -> None:
        raise Overloaded("queue: expected room", 2)

    monkeypatch.setattr(service.context.engine, "admit", admit)
    with expect_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue: expected room") as expected:
        service.call("ModelInfer", raw_request(hidden=hidden))
    assert expected.trailers["retry-after"] == "2"


def test_the_priority_of_the_metadata_reaches_the_engine(service, hidden, monkeypatch):
    calls: list[GraphCall] = []
    run = service.context.engine.run

    def spy(call: GraphCall):
        calls.append(call)
        return run(call)

    monkeypatch.setattr(service.context.engine, "run", spy)
    service.call(
        "ModelInfer", raw_request(hidden=hidden), timeout=7,
        metadata=[("x-hsoftmax-priority", "batch")],
    )  # fmt: skip
    (call,) = calls
    assert call.priority == "batch"
    assert 5 < call.timeout < 7.5  # the deadline travels as a rounded time


def test_the_log_has_a_line_for_each_call(service, hidden, monkeypatch):
    stream = io.BytesIO()
    recorder = RequestRecorder(service.context.metrics, json_log("info", stream))
    monkeypatch.setattr(service.server._handler, "_recorder", recorder)
    service.call("ModelInfer", raw_request(hidden=hidden), metadata=[("x-request-id", "mine")])
    until(stream.getvalue)
    service.call("ServerReady")  # a probe: at debug
    with expect_status(grpc.StatusCode.NOT_FOUND):
        service.call("ModelInfer", raw_request("wordz", hidden=hidden))
    until(lambda: stream.getvalue().count(b"\n") == 2)
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["request_id"], first["method"], first["model"], first["rows"]) == (
        "mine", "GRPC", "words", 3,
    )  # fmt: skip
    assert (first["status"], first["code"]) == (200, "ok")
    assert (second["status"], second["code"]) == (404, "unknown_bundle")
    assert first["route"] == f"/{SERVICE}/ModelInfer"


def test_an_overloaded_service_refuses_before_it_reads_tensors(repository, hidden, monkeypatch):
    monkeypatch.setattr(Scheduler, "is_full", lambda self, lane: lane is Lane.FULL)
    with serving_grpc(repository) as service:
        for output, status in (("log_probs", "RESOURCE_EXHAUSTED"), ("exact", "INVALID_ARGUMENT")):
            request = raw_request("words", output, hidden=hidden)
            request.raw_input_contents[0] = b"no tensor"
            with expect_status(grpc.StatusCode[status]):
                service.call("ModelInfer", request)
