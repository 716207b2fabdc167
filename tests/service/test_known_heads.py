"""Whose head is known is answered without uvicorn, and as if it had read the request."""

import asyncio
import gc
import gzip
import io
import json
import weakref

import pytest

from service.core import core_of
from service.door import Door
from service.formats import Format
from service.protocol import Protocol

from .conftest import TARGETS
from .engine.conftest import PATIENCE
from .lines import FULL, ROW, TINY, URL, Answer, Line, flushed, parsed, post
from .test_door import REQUESTS
from .test_overload import _Whole

LIMITS = {"max_body_bytes": 65_000, "compress_above": 500}
UNKNOWN = {
    "gzip sent": "a body that takes a thread",
    "unknown question": "no question",
    "another method": "no question",
    "its own id": "like no other",
    "chunked": "no length",
}


LET_IN = {"to be compressed", "too large", "no targets"}


class Reads:
    """uvicorn's parser, counting what it is fed."""

    def __init__(self, parser) -> None:
        self.parser = parser
        self.number = 0

    def feed_data(self, data: bytes) -> None:
        self.number += 1
        self.parser.feed_data(data)

    def __getattr__(self, name: str):
        return getattr(self.parser, name)


class Counted(Line):
    """A connection of which is known how often uvicorn has read from it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.protocol.parser = self._reads = Reads(self.protocol.parser)

    @property
    def read(self) -> int:
        return self._reads.number


async def met(app, request: bytes) -> Counted:
    """A connection, after another one has made the head of this request known."""
    await Counted(app).ask(request)
    return Counted(app)


def others(app) -> None:
    """Somebody who comes in the same turn of the loop: who comes next waits for its end."""
    Line(app).send(post(TINY))


@pytest.mark.parametrize("name", REQUESTS)
def test_the_app_gives_the_same_answer(app, monkeypatch, name):
    one, request = app(**LIMITS), REQUESTS[name]

    async def all_ways() -> list[Answer]:
        line = await met(one, request)
        known = [await line.ask(request) for _ in range(3)]
        monkeypatch.setattr(Door, "open", True)
        return [*known, await Line(one).ask(request)]

    *known, in_app = asyncio.run(all_ways())
    for answer in known:
        if answer.headers.get("content-encoding") == "gzip":
            assert gzip.decompress(answer.body) == gzip.decompress(in_app.body)
        else:
            assert answer.steady() == in_app.steady()


@pytest.mark.parametrize("name", REQUESTS)
def test_uvicorn_reads_only_what_is_let_in(app, name):
    one, request = app(**LIMITS), REQUESTS[name]

    async def main() -> None:
        line = await met(one, request)
        await line.ask(request)
        assert line.read == (name in UNKNOWN or name in LET_IN)
        assert line.state.total_requests == 1

    asyncio.run(main())


def test_a_head_is_known_whatever_stands_in_the_body(app):
    one = app()

    async def main() -> None:
        line = await met(one, post(TINY))
        for target in (2, TARGETS - 1):
            known = await line.ask(post(TINY | {"targets": [target], "log": False}))
            assert known.status == 200
        assert (await line.ask(post(b"{"))).status == 400
        assert (await line.ask(post(b""))).status == 400
        assert line.read == 0

    asyncio.run(main())


def test_what_comes_in_parts_or_together_is_answered_in_order(app):
    one, request = app(), post(TINY)

    async def main() -> None:
        line = await met(one, request)
        whole = await line.ask(request)
        for cut in (10, request.index(b"\r\n\r\n") + 4, len(request) - 5):
            line.send(request[:cut])
            await asyncio.sleep(0)
            assert (await line.ask(request[cut:])).steady() == whole.steady()
            assert (await line.ask(request)).steady() == whole.steady()
        line.send(request, post(FULL), post({}), request)
        answers = await line.answers(4)
        assert [answer.status for answer in answers] == [200, 200, 422, 200]
        assert len(answers[1].json["probabilities"][0]) == TARGETS
        assert answers[3].steady() == whole.steady()
        assert not line.wire.closed

    asyncio.run(main())


@pytest.mark.parametrize("first", [TINY, FULL, {}])
def test_what_comes_while_one_is_at_the_door_waits_for_it(app, first):
    one = app()

    async def main() -> None:
        line = await met(one, post(first))
        alone = await Line(one).ask(post(TINY))
        others(one)
        line.send(post(first))
        line.send(post(TINY), post({})[:20])
        line.send(post({})[20:], post(TINY))
        answers = await line.answers(4)
        assert [one.status for one in answers] == [422 if not first else 200, 200, 422, 200]
        assert answers[1].steady() == answers[3].steady() == alone.steady()
        assert not line.wire.closed
        assert not line.protocol.flow.read_paused

    asyncio.run(main())


@pytest.mark.parametrize("query", [TINY, FULL])
def test_a_server_that_stops_meanwhile_answers_and_closes(app, query):
    one = app()

    async def main() -> None:
        line = await met(one, post(query))
        others(one)
        line.send(post(query))
        line.protocol.shutdown()
        (answer,) = await line.answers()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert line.wire.closed
        idle = await met(one, post(query))
        idle.protocol.shutdown()
        assert idle.wire.closed

    asyncio.run(main())


def test_a_service_that_drains_sees_everyone_in_the_app(app):
    one = app()

    async def main() -> None:
        line = await met(one, post(TINY))
        core_of(one).health.draining = True
        line.send(post(TINY))
        assert line.tasks == 1
        assert (await line.answers())[0].headers["connection"] == "close"

    asyncio.run(main())


def test_a_client_that_reads_nothing_waits_in_the_app(app):
    one = app()

    async def main() -> None:
        line = await met(one, post(TINY))
        line.protocol.pause_writing()
        line.send(post(TINY))
        assert line.tasks == 1
        line.protocol.resume_writing()
        assert (await line.answers())[0].status == 200

    asyncio.run(main())


@pytest.mark.parametrize("tiny", [True, False])
def test_who_leaves_meanwhile_disturbs_nobody_and_is_logged(app, monkeypatch, tiny):
    if not tiny:
        monkeypatch.setattr("service.app.INLINE_WORK", 0)
    log = io.BytesIO()
    one = app(log=log)

    async def main() -> None:
        left, stays = await met(one, post(TINY)), Counted(one)
        others(one)
        left.send(post(TINY))
        left.send(post(TINY))  # which is read by nobody
        stays.send(post(TINY))
        left.hang_up()
        assert (await stays.answers())[0].status == 200
        assert not left.wire.taken
        assert left.read == 0
        assert not left.tasks

    asyncio.run(main())
    lines = [json.loads(line) for line in flushed(one, log).splitlines()]
    codes = sorted(line["code"] for line in lines if line["event"] == "request")
    assert codes == (["ok"] * 4 if tiny else ["client_left", *["ok"] * 3])


def test_the_timer_of_idle_connections_cuts_nobody_off(app):
    one = app()

    async def main() -> None:
        line = await met(one, post(TINY))
        await line.ask(post(TINY))
        others(one)
        line.send(post(TINY))
        line.protocol._rested -= 60
        line.protocol.timeout_keep_alive_handler()
        assert (await line.answers())[0].status == 200
        line.protocol.timeout_keep_alive_handler()  # as the last answer is not long ago
        assert not line.wire.closed
        line.protocol._rested -= 60
        line.protocol.timeout_keep_alive_handler()
        assert line.wire.closed

    asyncio.run(main())


def test_a_key_is_asked_for_each_time(app, tmp_path, monkeypatch):
    keys = tmp_path / "keys"
    keys.write_text("first\n")
    one = app(api_keys_file=keys)
    monkeypatch.setattr("service.keys._LOOK_AGAIN", 0.0)
    right, wrong = post(TINY, authorization="Bearer first"), post(TINY)

    async def main() -> None:
        line = await met(one, right)
        assert (await line.ask(right)).status == 200
        assert line.read == 0
        for _ in range(3):
            assert (await line.ask(wrong)).status == 401
        assert line.read == 3  # nobody without a key has a head learnt in place of others'
        keys.write_text("second, of another length\n")
        assert (await line.ask(right)).status == 401
        keys.write_text("first\n")
        assert (await line.ask(right)).status == 200

    asyncio.run(main())


def test_a_bundle_is_looked_for_each_time(app):
    one = app()

    async def main() -> None:
        line = await met(one, post(TINY))
        assert (await line.ask(post(TINY))).status == 200
        core_of(one).repository.unload("words")
        assert (await line.ask(post(TINY))).status == 404
        core_of(one).repository.reload("words")
        assert (await line.ask(post(TINY))).status == 200

    asyncio.run(main())


def test_what_is_let_in_has_its_own_headers_and_limits(app):
    one = app(max_body_bytes=3_000)

    async def main() -> list[Answer]:
        line = await met(one, post(TINY))
        return [await line.ask(post(b" " * length)) for length in (3_001, 3_000)]

    large, blank = asyncio.run(main())
    assert (large.status, large.json["code"]) == (413, "too_large")
    assert large.json["error"].endswith("got 3001")
    assert blank.status == 400


def test_a_connection_that_ends_is_gone(app):
    one = app()

    async def main() -> weakref.ref[Protocol]:
        line = await met(one, post(TINY))
        await line.ask(post(TINY))
        others(one)
        line.send(post(TINY))
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


@pytest.mark.parametrize("more", [{}, {"accept_encoding": "gzip"}, {"authorization": "Bearer key"}])
def test_a_refusal_is_that_of_the_app_logged_and_counted(app, monkeypatch, more):
    monkeypatch.setattr("service.app.INLINE_WORK", 0)
    log = io.BytesIO()
    keys = {"api_keys": "key"} if "authorization" in more else {}
    one = app(max_queue_requests=1, log=log, **keys)
    core = core_of(one)
    runtime = _Whole("log_probs")
    runtime.hold()
    object.__setattr__(core.repository.find("words").sessions["log_probs"], "runtime", runtime)
    request = post(FULL, **more)

    async def main() -> list[Answer]:
        running, waiting, late = Counted(one), Counted(one), Counted(one)
        running.send(request)
        await runtime.begun()
        waiting.send(request)
        async with asyncio.timeout(PATIENCE):
            while core.engine.waiting()["full"] != 1:
                await asyncio.sleep(0)
        read = late.read
        late.send(request)
        late.send(request)
        known = parsed(late.wire.taken)
        assert late.read == read
        late.wire.taken = b""
        parts = [
            await late.ask(post(FULL | {"log": False}, x_request_id=f"{i}", **more)) for i in "ab"
        ]
        assert late.read == read + 2
        assert not late.tasks
        assert (await late.ask(post(TINY | {"targets": [TARGETS]}, **more))).status == 422
        monkeypatch.setattr(Door, "open", True)
        in_app = await late.ask(request)
        monkeypatch.undo()
        runtime.let_all_go()
        await running.answers()
        await waiting.answers()
        return [*known, *parts, in_app]

    answers = asyncio.run(main())
    assert len(answers) == 5
    for answer in answers:
        assert (answer.status, answer.json["code"]) == (429, "overloaded")
        assert answer.json["request_id"] == answer.headers["x-request-id"]
        assert int(answer.headers["content-length"]) == len(answer.body)
        assert answer.steady() == answers[-1].steady()
    assert len({answer.headers["x-request-id"] for answer in answers}) == 5
    page = core.metrics.page().decode()
    assert 'hsoftmax_rejected_total{lane="full"} 5.0' in page
    lines = [json.loads(line) for line in flushed(one, log).splitlines()]
    refused = [line for line in lines if line.get("code") == "overloaded"]
    assert [line["request_id"] for line in refused] == [a.json["request_id"] for a in answers]
    assert len({json.dumps(_but_time(line)) for line in refused}) == 1


def _but_time(line: dict) -> dict:
    return {k: v for k, v in line.items() if k not in ("timestamp", "request_id", "ms")}


def test_a_refusal_needs_a_key_and_a_bundle(app, monkeypatch):
    one = app(api_keys="key")
    core = core_of(one)
    request = post(FULL, authorization="Bearer key")

    async def main() -> None:
        line = await met(one, request)
        monkeypatch.setattr(core.engine._queue, "is_full", lambda lane: True)
        assert (await line.ask(request)).status == 429
        assert line.read == 0
        monkeypatch.setattr(core.keys, "opens", lambda key: False)
        assert (await line.ask(request)).status == 401
        monkeypatch.undo()
        core.repository.unload("words")
        monkeypatch.setattr(core.engine._queue, "is_full", lambda lane: True)
        assert (await line.ask(request)).status == 404
        core.repository.reload("words")
        assert (await line.ask(request)).status == 429

    asyncio.run(main())
    assert 'hsoftmax_rejected_total{lane="full"} 2.0' in core.metrics.page().decode()


def test_what_is_too_large_is_so_where_there_is_no_room_too(app, monkeypatch):
    one = app(max_body_bytes=3_000)

    async def main() -> None:
        line = await met(one, post(FULL))
        monkeypatch.setattr(core_of(one).engine._queue, "is_full", lambda lane: True)
        for length, status in ((3_000, 429), (3_001, 413)):
            assert (await line.ask(post(b" " * length))).status == status

    asyncio.run(main())


def test_nothing_is_looked_for_for_who_has_no_key(app, monkeypatch):
    looked = []
    monkeypatch.setattr("service.routes.questions.expect_arrow", lambda: looked.append(1))
    one, arrow = app(api_keys="key"), {"accept": str(Format.ARROW)}

    async def main() -> None:
        for key in ({}, {"authorization": "Bearer another"}):
            assert (await Line(one).ask(post(FULL, **key, **arrow))).status == 401
            assert not looked
        assert (await Line(one).ask(post(FULL, authorization="Bearer key", **arrow))).status == 200
        assert looked

    asyncio.run(main())


@pytest.mark.parametrize("step", ["service.door.know", "service.refusals.Refusals.refuse"])
def test_what_fails_unforeseen_before_a_question_is_read_costs_no_answer(app, monkeypatch, step):
    def fails(*_: object) -> None:
        raise RuntimeError("secret")

    log = io.BytesIO()
    one = app(log=log)

    async def main() -> list[Answer]:
        line = await met(one, post(TINY))
        monkeypatch.setattr(step, fails)
        return [await line.ask(post(TINY)), await Line(one).ask(post(TINY, accept="*/*"))]

    assert [answer.status for answer in asyncio.run(main())] == [200, 200]
    assert b"secret" in flushed(one, log)


@pytest.mark.parametrize("known", [True, False])
def test_what_fails_while_one_is_answered_hangs_up_on_that_one(app, monkeypatch, known):
    def fails(*_: object) -> None:
        monkeypatch.undo()
        raise RuntimeError("secret")

    log = io.BytesIO()
    one = app(log=log)

    async def main() -> None:
        line, other = await met(one, post(TINY)), Counted(one)
        monkeypatch.setattr("service.door.note", fails)
        line.send(post(TINY) if known else post(TINY, accept="*/*"))
        assert line.wire.closed
        assert not line.wire.taken
        assert (await other.ask(post(TINY))).status == 200

    asyncio.run(main())
    assert b"secret" in flushed(one, log)


def test_a_refusal_says_what_to_wait_now(app, monkeypatch):
    one = app()
    queue = core_of(one).engine._queue

    async def main() -> None:
        line = await met(one, post({"inputs": [ROW], "targets": [1]}))
        await met(one, post(FULL))
        monkeypatch.setattr(queue, "is_full", lambda lane: True)
        for seconds in (1, 7, 1):
            queue._retry_after = seconds
            answer = await line.ask(post(FULL))
            assert answer.headers["retry-after"] == str(seconds)
            assert answer.json["error"].startswith("full: ")
            assert (await line.ask(post(TINY))).json["error"].startswith("target: ")

    asyncio.run(main())
    assert URL in post(TINY).decode()
