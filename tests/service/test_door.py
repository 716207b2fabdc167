"""At the door: the answers are those of the app, and tiny ones take neither task nor app."""

import asyncio
import gc
import gzip
import io
import json
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from fastapi import FastAPI

from service.core import core_of
from service.door import Door
from service.exchange import current
from service.protocol import Protocol

from .conftest import HIDDEN, LABELS, TARGETS
from .engine.conftest import PATIENCE
from .lines import FULL, ROW, TINY, URL, VARIABLE, Answer, Line, flushed, parsed, post
from .test_overload import _Whole


def npy(shape: Sequence[int], **told) -> bytes:
    file = io.BytesIO()
    np.save(file, np.full(shape, 0.25, dtype=np.float32))
    return post(file.getvalue(), content_type="application/x-npy", **told)


TOPK, CLUSTERS, SAMPLE = (
    URL.replace("probabilities", one) for one in ("topk", "clusters", "sample")
)
REQUESTS = {
    "target": post(TINY),
    "targets": post({"inputs": [ROW] * 3, "targets": [[1], [2, 3], []]}),
    "no targets": post({"inputs": [ROW], "targets": [[]]}),
    "label": post({"inputs": [ROW], "targets": [LABELS[-1]]}),
    "logs": post(TINY | {"log": True}),
    "version": post(TINY | {"version": 1}),
    "clusters beside": post({"inputs": [ROW], "targets": [[1]], "clusters": True}),
    "full": post(FULL),
    "topk": post({"inputs": [ROW], "k": 3}, TOPK),
    "clusters": post({"inputs": [ROW]}, CLUSTERS),
    "sample": post({"inputs": [ROW], "num_samples": 5, "seed": 3}, SAMPLE),
    "npy": npy((1, HIDDEN), url=f"{URL}?targets=3", accept="application/x-npy"),
    "npy, full": npy((2, HIDDEN), url=f"{URL}?log=true"),
    "npy in, topk": npy((2, HIDDEN), url=f"{TOPK}?k=2"),
    "query string": post(TINY, f"{URL}?version=1"),
    "gzip asked": post(TINY, accept_encoding="gzip"),
    "to be compressed": post({"inputs": [ROW] * 150, "targets": [1] * 150}, accept_encoding="gzip"),
    "gzip sent": post(gzip.compress(json.dumps(TINY).encode()), content_encoding="gzip"),
    "its own id": post({}, x_request_id="mine"),
    "not JSON": post(b"{"),
    "not finite": post(b'{"inputs": [[NaN]]}'),
    "missing": post({}),
    "out of range": post(TINY | {"targets": [TARGETS]}),
    "too narrow": post({"inputs": [[1.0]], "targets": [1]}),
    "unknown bundle": post(TINY, "/v1/models/nothing/probabilities"),
    "unknown version": post(TINY | {"version": 9}),
    "unknown question": post(TINY, "/v1/models/words/nothing"),
    "no task": post(
        {"h": [], "input_index": [], "output_index": []}, URL.replace("probabilities", "block_dot")
    ),
    "escaped": post(TINY, "/v1/models/w%6Frds/probabilities"),
    "fragment": post(TINY, f"{URL}#here"),
    "another method": post(TINY, method="PUT"),
    "foreign type": post(TINY, content_type="text/html"),
    "foreign answer": post(TINY, accept="image/png"),
    "npy for lists": post(
        {"inputs": [ROW] * 2, "targets": [[1], [2, 3]]}, accept="application/x-npy"
    ),
    "bad timeout": post(TINY, x_hsoftmax_timeout_ms="soon"),
    "low priority": post(TINY, x_hsoftmax_priority="batch"),
    "too large": post(b" " * 70_000),
    "chunked": b"POST %s HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
    % (URL.encode(), len(json.dumps(TINY)), json.dumps(TINY).encode()),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_the_app_gives_the_same_answer(app, monkeypatch, name):
    one = app(max_body_bytes=65_000, compress_above=500)

    async def both() -> list[Answer]:
        at_door = await Line(one).ask(REQUESTS[name])
        monkeypatch.setattr(Door, "open", True)
        return [at_door, await Line(one).ask(REQUESTS[name])]

    at_door, in_app = asyncio.run(both())
    assert at_door.headers.keys() >= VARIABLE
    if "sample" not in name:
        assert at_door.headers.keys() | {"transfer-encoding", "content-length"} == (
            in_app.headers.keys() | {"transfer-encoding", "content-length"}
        )
    one_encoding = at_door.headers.get("content-encoding")
    assert one_encoding == in_app.headers.get("content-encoding")
    if one_encoding == "gzip":
        assert gzip.decompress(at_door.body) == gzip.decompress(in_app.body)
        return
    assert at_door.steady() == in_app.steady()


@pytest.mark.parametrize("name", ["target", "npy", "topk", "missing", "gzip asked", "chunked"])
def test_what_is_tiny_or_wrong_starts_no_task(app, name):
    one = app()

    async def main() -> None:
        line = Line(one)
        line.send(REQUESTS[name])
        assert not line.tasks
        assert not line.wire.taken  # it is answered with all that come in this turn
        await asyncio.sleep(0)
        assert len(parsed(line.wire.taken)) == 1
        assert not line.tasks
        assert line.state.total_requests == 1

    asyncio.run(main())


def test_what_came_in_one_turn_is_run_at_once(app):
    one = app()
    runtime = counted(one)

    async def main() -> list[Answer]:
        lines = [Line(one) for _ in range(20)]
        for i, line in enumerate(lines):
            line.send(post({"inputs": [[i / 20] * HIDDEN], "targets": [i % TARGETS]}))
        return [(await line.answers())[0] for line in lines]

    together = asyncio.run(main())
    assert runtime.rows == [16, 4]

    async def alone(i: int) -> Answer:
        query = {"inputs": [[i / 20] * HIDDEN], "targets": [i % TARGETS]}
        return await Line(one).ask(post(query))

    for i, answer in enumerate(together):
        expected = asyncio.run(alone(i)).json["probabilities"]
        np.testing.assert_allclose(answer.json["probabilities"], expected, rtol=1e-6)


def test_what_is_drawn_of_a_seed_shares_no_run(app):
    one = app()
    runtime = counted(one, "sample")

    async def main() -> list[Answer]:
        lines = [Line(one) for _ in range(3)]
        for line in lines:
            line.send(REQUESTS["sample"])
        return [(await line.answers())[0] for line in lines]

    answers = asyncio.run(main())
    assert runtime.rows == [1, 1, 1]
    assert answers[0].steady() == answers[1].steady() == answers[2].steady()


@dataclass
class Counting:
    """A runtime that counts the rows of its runs."""

    runtime: object
    rows: list[int] = field(default_factory=list)

    def run(self, names, feeds, options=None) -> list:
        self.rows.append(len(feeds["hidden"]))
        return self.runtime.run(names, feeds, options)

    def get_providers(self) -> list[str]:
        return []


def counted(app: FastAPI, task: str = "target_log_prob") -> Counting:
    session = core_of(app).repository.find("words").sessions[task]
    runtime = Counting(session.runtime)
    object.__setattr__(session, "runtime", runtime)
    return runtime


def test_one_that_is_wrong_spoils_nobody_elses(app):
    one = app()

    async def main() -> list[Answer]:
        lines = [Line(one) for _ in range(3)]
        for line, query in zip(lines, (TINY, TINY | {"targets": [TARGETS]}, TINY), strict=True):
            line.send(post(query))
        return [(await line.answers())[0] for line in lines]

    first, wrong, last = asyncio.run(main())
    assert first.steady() == last.steady()
    assert (first.status, wrong.status) == (200, 422)


def test_a_body_in_parts_and_requests_in_one_go_are_answered_in_order(app):
    one = app()
    request = post(TINY)

    async def main() -> None:
        line = Line(one)
        whole = await line.ask(request)
        for cut in (10, request.index(b"\r\n\r\n") + 4, len(request) - 5):
            line.send(request[:cut])
            await asyncio.sleep(0)
            assert (await line.ask(request[cut:])).steady() == whole.steady()
        line.send(request, post(FULL), post({}), request)
        answers = await line.answers(4)
        assert [answer.status for answer in answers] == [200, 200, 422, 200]
        assert len(answers[1].json["probabilities"][0]) == TARGETS
        assert answers[3].steady() == whole.steady()
        line.send(request[:-1])
        line.send(request[-1:], request[:9])  # the next begins while this one is at the door
        assert (await line.answers())[0].steady() == whole.steady()
        assert (await line.ask(request[9:])).steady() == whole.steady()
        assert not line.wire.closed

    asyncio.run(main())


def test_who_waits_to_be_told_to_go_on_is_told(app):
    one = app()

    async def main() -> None:
        line = Line(one)
        request = post(TINY, expect="100-continue")
        head = request[: request.index(b"\r\n\r\n") + 4]
        line.send(head)
        async with asyncio.timeout(PATIENCE):
            while not line.wire.taken:
                await asyncio.sleep(0)
        assert line.wire.taken == b"HTTP/1.1 100 Continue\r\n\r\n"
        line.wire.taken = b""
        assert (await line.ask(request[len(head) :])).status == 200

    asyncio.run(main())


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_who_wants_the_connection_closed_gets_that(app, version):
    one = app()

    async def main() -> None:
        line = Line(one)
        request = post(TINY, connection="close").replace(b"HTTP/1.1", f"HTTP/{version}".encode())
        answer = await line.ask(request)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert line.wire.closed

    asyncio.run(main())


def test_a_client_that_leaves_meanwhile_disturbs_nobody(app):
    one = app()

    async def main() -> None:
        left, stays = Line(one), Line(one)
        left.send(post(TINY))
        stays.send(post(TINY))
        left.hang_up()
        assert (await stays.answers())[0].status == 200
        assert not left.wire.taken

    asyncio.run(main())


def test_one_that_leaves_with_two_questions_costs_nobody_an_answer(app):
    log = io.BytesIO()
    one = app(log=log)

    async def main() -> None:
        lines = [Line(one) for _ in range(20)]
        left = lines[10]
        for line in lines:
            line.send(post(TINY))
        left.send(post(TINY))
        left.hang_up()
        for line in lines:
            if line is not left:
                assert (await line.answers())[0].status == 200
        assert not left.wire.taken
        async with asyncio.timeout(PATIENCE):
            while any(line.tasks for line in lines):
                await asyncio.sleep(0)

    asyncio.run(main())
    assert b'"level":"error"' not in flushed(one, log)


@pytest.mark.parametrize("request_", ["target", "full", "topk", "missing", "to be compressed"])
def test_a_connection_keeps_nothing_of_what_it_asked(app, request_):
    one = app(compress_above=500)

    async def main() -> None:
        line = Line(one)
        await line.ask(REQUESTS[request_])
        cycle = line.protocol.cycle
        assert "hsoftmax" not in cycle.scope or current(cycle.scope).order is None
        assert not cycle.body

    asyncio.run(main())


@pytest.mark.parametrize("leaves", ["answered", "refused", "not answered"])
def test_a_connection_that_ends_is_gone(app, leaves):
    one = app(**({"api_keys": "secret"} if leaves == "refused" else {}))

    async def main() -> weakref.ref[Protocol]:
        line = Line(one)
        line.send(post(TINY))
        if leaves == "answered":
            await line.answers()
        line.hang_up()
        for _ in range(3):
            await asyncio.sleep(0)
        line.protocol._unset_keepalive_if_required()
        return weakref.ref(line.protocol)

    gc.collect()
    gc.disable()  # nothing holds itself
    try:
        assert asyncio.run(main())() is None
    finally:
        gc.enable()


def test_a_server_that_stops_meanwhile_answers_and_closes(app):
    one = app()

    async def main() -> None:
        line = Line(one)
        line.send(post(TINY))
        line.protocol.shutdown()
        (answer,) = await line.answers()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert line.wire.closed

    asyncio.run(main())


def test_a_service_that_drains_stops_nobody_at_the_door(app):
    one = app()
    core_of(one).health.draining = True

    async def main() -> None:
        line = Line(one)
        line.send(post(TINY))
        assert line.tasks == 1
        assert (await line.answers())[0].headers["connection"] == "close"

    asyncio.run(main())


def test_a_client_that_reads_nothing_waits_in_the_app(app):
    one = app()

    async def main() -> None:
        line = Line(one)
        line.protocol.pause_writing()
        line.send(post(TINY))
        assert line.tasks == 1
        await asyncio.sleep(0.01)
        assert not line.wire.taken
        line.protocol.resume_writing()
        assert (await line.answers())[0].status == 200

    asyncio.run(main())


def test_the_door_is_closed_without_a_key(app):
    one = app(api_keys="secret")

    async def main() -> None:
        line = Line(one)
        line.send(post(TINY))
        (answer,) = parsed(line.wire.taken)
        assert (answer.status, answer.json["code"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
        line.wire.taken = b""
        assert (await line.ask(post(TINY, authorization="Bearer wrong"))).status == 401
        assert (await line.ask(post(TINY, authorization="Bearer secret"))).status == 200

    asyncio.run(main())


def test_what_has_no_room_is_refused_on_the_spot_logged_and_counted(app, monkeypatch):
    monkeypatch.setattr("service.app.INLINE_WORK", 0)
    log = io.BytesIO()
    one = app(max_queue_requests=1, log=log)
    core = core_of(one)
    runtime = _Whole("log_probs")
    runtime.hold()
    object.__setattr__(core.repository.find("words").sessions["log_probs"], "runtime", runtime)

    async def main() -> list[Answer]:
        running, waiting, late = Line(one), Line(one), Line(one)
        running.send(post(FULL))
        await runtime.begun()
        waiting.send(post(FULL))
        async with asyncio.timeout(PATIENCE):
            while core.engine.waiting()["full"] != 1:
                await asyncio.sleep(0)
        late.send(post(FULL, x_request_id="late"))
        (refused,) = parsed(late.wire.taken)
        assert (refused.status, refused.json["code"]) == (429, "overloaded")
        assert refused.json["request_id"] == refused.headers["x-request-id"] == "late"
        assert int(refused.headers["retry-after"]) >= 1
        assert not late.tasks
        late.send(post({"inputs": "no rows"}))  # what is refused anyway is not read
        assert parsed(late.wire.taken)[1].status == 429
        late.wire.taken = b""
        assert (await late.ask(post(TINY | {"targets": [TARGETS]}))).status == 422  # another lane
        runtime.let_all_go()
        return [*await running.answers(), *await waiting.answers()]

    assert [answer.status for answer in asyncio.run(main())] == [200, 200]
    page = core.metrics.page().decode()
    assert 'hsoftmax_rejected_total{lane="full"} 2.0' in page
    refusal = (
        '{code="overloaded",model="words",route="/v1/models/{name}/probabilities",status="429"}'
    )
    assert f"hsoftmax_requests_total{refusal} 2.0" in page
    lines = [json.loads(line) for line in flushed(one, log).splitlines()]
    (line,) = [line for line in lines if line.get("request_id") == "late"]
    assert (line["status"], line["code"], line["model"]) == (429, "overloaded", "words")


def test_each_answer_is_one_line_and_one_count(app):
    log = io.BytesIO()
    one = app(log=log, compress_above=500)

    async def main() -> None:
        line = Line(one)
        for request in ("target", "full", "missing", "to be compressed"):
            await line.ask(REQUESTS[request])

    asyncio.run(main())
    core = core_of(one)
    lines = [json.loads(line) for line in flushed(one, log).splitlines()]
    seen = [(line["code"], line["rows"]) for line in lines if line["event"] == "request"]
    assert seen == [("ok", 1), ("ok", 1), ("invalid_query", 0), ("ok", 150)]
    assert (
        'hsoftmax_rows_total{model="words",route="/v1/models/{name}/probabilities"} 152.0'
        in core.metrics.page().decode()
    )


def test_a_fault_at_the_door_has_the_error_shape_and_is_logged(app, monkeypatch):
    log = io.BytesIO()
    one = app(log=log)

    def broken(*_: object) -> None:
        raise KeyError("/secret/path")

    monkeypatch.setattr("service.routes.questions.decode", broken)

    async def main() -> Answer:
        return await Line(one).ask(post(TINY))

    answer = asyncio.run(main())
    assert (answer.status, answer.json["code"]) == (500, "internal")
    assert "secret" not in answer.json["error"]
    assert b"/secret/path" in flushed(one, log)


def test_where_running_together_fails_the_app_answers(app, monkeypatch):
    log = io.BytesIO()
    one = app(log=log)

    def broken(*_: object) -> None:
        raise KeyError("together")

    monkeypatch.setattr("service.engine.engine.run_together", broken)

    async def main() -> list[Answer]:
        lines = [Line(one) for _ in range(3)]
        for line in lines:
            line.send(post(TINY))
        return [(await line.answers())[0] for line in lines]

    assert {answer.status for answer in asyncio.run(main())} == {200}
    assert b"door_failed" in flushed(one, log)


def test_a_graph_that_stops_is_told_at_the_door(app):
    one = app()
    session = core_of(one).repository.find("words").sessions["target_log_prob"]
    runtime = _Whole("target_log_prob")
    runtime.poison = 0.25
    object.__setattr__(session, "runtime", runtime)

    async def main() -> Answer:
        return await Line(one).ask(post(TINY))

    answer = asyncio.run(main())
    assert (answer.status, answer.json["code"]) == (500, "inference_failed")
