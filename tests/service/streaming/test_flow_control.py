"""A stream and its client wait for each other, within bounds, and neither for ever."""

import asyncio
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from starlette.types import ASGIApp, Message

from hsoftmax.models.hierarchical_softmax import target_log_prob
from hsoftmax.service import Settings, create_app
from hsoftmax.service.context import AppContext, context_of
from hsoftmax.service.logging import json_log
from tests.service.conftest import SERVED, TOLERANCE
from tests.service.engine.conftest import PATIENCE, Held

from .test_score import lines, make_rows, read_lines

URL = "/v1/models/words/score"


@dataclass
class Client:
    """One request over ASGI: sends when told to, takes while it is let."""

    app: ASGIApp
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    asked_for: int = 0  # how many pieces the service has asked for
    messages: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._coming: asyncio.Queue[Message] = asyncio.Queue()
        self._takes = asyncio.Event()
        self._takes.set()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        headers = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        scope = {"type": "http", "method": "POST", "path": URL, "headers": headers,
                 "query_string": self.query.encode()}  # fmt: skip
        await self.app(scope, self._receive, self._send)

    def send(self, rows: list) -> None:
        self.send_bytes(lines(rows))

    def send_bytes(self, body: bytes, more: bool = True) -> None:
        self._coming.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def end(self) -> None:
        self.send_bytes(b"", more=False)

    def leave(self) -> None:
        self._coming.put_nowait({"type": "http.disconnect"})

    def take_nothing(self) -> None:
        self._takes.clear()

    def take_all(self) -> None:
        self._takes.set()

    async def done(self) -> "Client":
        async with asyncio.timeout(PATIENCE):
            await self._task
        return self

    async def got(self, records: int) -> list[dict]:
        """Wait for so many records."""
        async with asyncio.timeout(PATIENCE):
            while self.content.count(b"\n") < records:
                await asyncio.sleep(0.001)
        return [json.loads(line) for line in self.content.splitlines()]

    @property
    def status(self) -> int:
        return self.messages[0]["status"]

    @property
    def content(self) -> bytes:
        return b"".join(m["body"] for m in self.messages if m["type"] == "http.response.body")

    @property
    def ended(self) -> bool:
        """Whether the answer has an end: else its connection is cut."""
        return bool(self.messages) and not self.messages[-1].get("more_body", False)

    async def _receive(self) -> Message:
        self.asked_for += 1
        return await self._coming.get()

    async def _send(self, message: Message) -> None:
        await self._takes.wait()
        self.messages.append(message)


@dataclass
class Scene:
    """An app, whose target queries can be held."""

    app: ASGIApp
    context: AppContext
    runtime: "_Graph"

    def client(self, query: str = "", **headers: str) -> Client:
        return Client(self.app, query, {n.replace("_", "-"): v for n, v in headers.items()})


class _Graph(Held):
    """The graph itself, once it may go."""

    def __init__(self, real) -> None:
        super().__init__("target_log_prob")
        self._real = real

    def _result(self, feeds):
        (log_prob,) = self._real.run(["log_prob"], feeds)
        return log_prob


@pytest.fixture
def stage(repository, monkeypatch) -> Callable[..., Scene]:
    monkeypatch.setattr("hsoftmax.service.context.INLINE_MAX_COST", 0)
    cores = []

    def stage(repository=repository, **settings) -> Scene:
        told = Settings(repository=repository, threads=1, **settings)
        app = create_app(told, log=json_log("error"))
        context = context_of(app)
        cores.append(context)
        context.load()
        session = context.repository.find("words").sessions["target_log_prob"]
        runtime = _Graph(session.runtime)
        object.__setattr__(session, "runtime", runtime)
        return Scene(app, context, runtime)

    yield stage
    for context in cores:
        context.engine.close()


def expect_right(records: list[dict], rows: list[dict]) -> None:
    hidden = np.array([row["input"] for row in rows], dtype=np.float32)
    target = np.array([row["target"] for row in rows])
    wanted = target_log_prob(SERVED["words", 2], hidden, np.arange(len(rows)), target)
    np.testing.assert_allclose([r["log_prob"] for r in records], wanted, atol=TOLERANCE)


def run(main) -> None:
    asyncio.run(main())


def test_a_sender_that_waits_for_answers_gets_them(stage):
    async def main() -> None:
        client = stage().client()
        rows = make_rows(12)
        for i in range(0, 12, 3):
            client.send(rows[i : i + 3])
            assert len(await client.got(i + 3)) == i + 3
        client.end()
        await client.done()
        records, *_ = read_lines(client.content)
        expect_right(records, rows)
        assert client.ended

    run(main)


def test_a_line_may_come_in_any_pieces(stage):
    async def main() -> None:
        client = stage().client()
        rows = make_rows(3)
        for byte in lines(rows):
            client.send_bytes(bytes([byte]))
        client.end()
        await client.done()
        expect_right(read_lines(client.content)[0], rows)

    run(main)


def test_what_is_not_taken_stops_the_reading(stage):
    async def main() -> None:
        client = stage(stream_spool_bytes=0).client("task=sample&num_samples=200")
        client.take_nothing()
        pieces = 1500  # each is answered with 9 kilobytes
        rows = make_rows(1)
        for _ in range(pieces):
            client.send(rows)
        client.end()
        asked_for = -1
        while asked_for != client.asked_for:
            asked_for = client.asked_for
            await asyncio.sleep(0.3)
        assert asked_for < 400
        client.take_all()
        await client.done()
        records, *_ = read_lines(client.content)
        assert len(records) == pieces

    run(main)


def test_who_sends_all_before_reading_is_read_to_the_end(stage):
    async def main() -> None:
        client = stage().client("task=sample&num_samples=200")
        client.take_nothing()
        pieces = 600
        for _ in range(pieces):
            client.send(make_rows(1))
        client.end()
        async with asyncio.timeout(PATIENCE):
            while client.asked_for < pieces + 2:
                await asyncio.sleep(0.01)
        client.take_all()
        await client.done()
        assert len(read_lines(client.content)[0]) == pieces
        assert client.ended

    run(main)


def test_a_client_that_takes_nothing_is_given_up(stage):
    async def main() -> None:
        scene = stage(stream_timeout=0.2, max_streams=1)
        client = scene.client()
        client.take_nothing()
        client.send(make_rows(3))
        client.end()
        await client.done()
        assert client.messages == []
        again = scene.client()
        again.send(make_rows(3))
        again.end()
        await again.done()
        assert again.status == 200

    run(main)


def test_a_client_that_sends_nothing_more_is_told_so(stage):
    async def main() -> None:
        scene = stage(stream_timeout=0.2)
        idle = await scene.client().done()
        assert (idle.status, json.loads(idle.content)["code"]) == (408, "slow_body")
        begun = scene.client()
        begun.send(make_rows(2))
        await begun.done()
        *records, last = [json.loads(line) for line in begun.content.splitlines()]
        expect_right(records, make_rows(2))
        assert (last["code"], begun.ended) == ("slow_body", False)

    run(main)


def test_who_waits_for_the_service_is_not_idle(stage):
    async def main() -> None:
        scene = stage(stream_timeout=0.2)
        scene.runtime.hold()
        client = scene.client()
        client.send(make_rows(2))
        await asyncio.sleep(0.6)
        scene.runtime.let_all_go()
        await client.got(2)
        client.end()
        await client.done()
        assert client.ended

    run(main)


def test_a_client_that_leaves_takes_its_work_with_it(stage):
    async def main() -> None:
        scene = stage()
        scene.runtime.hold()
        client = scene.client()
        client.send(make_rows(2))
        await scene.runtime.begun()
        client.leave()
        await client.done()
        assert client.messages == []
        assert scene.runtime.terminated.wait(PATIENCE)

    run(main)


def test_a_body_that_is_cut_has_no_summary(stage):
    async def main() -> None:
        client = stage().client()
        client.send(make_rows(2))
        await client.got(2)
        client.leave()
        await client.done()
        assert b"summary" not in client.content
        assert not client.ended

    run(main)


def test_streams_are_bounded_in_number(stage):
    async def main() -> None:
        scene = stage(max_streams=1)
        first = scene.client()
        first.send(make_rows(1))
        await first.got(1)
        second = await scene.client().done()
        assert (second.status, json.loads(second.content)["code"]) == (429, "overloaded")
        assert int(dict(second.messages[0]["headers"])[b"retry-after"]) >= 1
        first.end()
        await first.done()
        assert first.ended

    run(main)


def test_a_full_lane_makes_rows_wait_and_none_fail(stage):
    async def main() -> None:
        scene = stage(max_queue_requests=2)
        scene.runtime.hold()
        clients = [scene.client() for _ in range(4)]
        for client in clients:
            for row in make_rows(8):
                client.send([row])
            client.end()
        async with asyncio.timeout(PATIENCE):
            while not scene.context.metrics.counters["rejected"]:
                await asyncio.sleep(0.01)
        scene.runtime.let_all_go()
        for client in clients:
            await client.done()
            records, _, summary = read_lines(client.content)
            expect_right(records, make_rows(8))
            assert summary["failed"] == 0

    run(main)


def test_a_graph_that_fails_costs_its_rows_and_no_others(stage):
    async def main() -> None:
        scene = stage()
        client = scene.client()
        rows = make_rows(9)
        for i in range(0, 9, 3):
            scene.runtime.poison = rows[4]["input"][0]
            client.send(rows[i : i + 3])
            await client.got(i + 3)
        client.end()
        await client.done()
        records, _, summary = read_lines(client.content)
        failed = [record for record in records if "code" in record]
        assert failed
        assert {record["code"] for record in failed} == {"inference_failed"}
        assert {record["id"] for record in failed} <= {3, 4, 5}
        assert summary["rows_in"] == 9
        assert client.ended

    run(main)


def test_rows_that_have_no_answer_in_time_say_so(stage):
    async def main() -> None:
        scene = stage()
        scene.runtime.hold()
        client = scene.client(x_hsoftmax_timeout_ms="50")
        client.send(make_rows(2))
        records = await client.got(2)
        assert [record["code"] for record in records] == ["deadline_exceeded"] * 2
        scene.runtime.let_all_go()
        client.end()
        await client.done()
        assert client.ended

    run(main)


def test_streams_go_after_what_is_interactive_unless_told(stage):
    seen = []

    async def main() -> None:
        scene = stage()
        submit = scene.context.engine.submit
        scene.context.engine.submit = lambda call: (seen.append(call.priority), submit(call))[1]
        for headers in ({}, {"x_hsoftmax_priority": "interactive"}):
            client = scene.client(**headers)
            client.send(make_rows(2))
            client.end()
            await client.done()

    run(main)
    assert (seen[0], seen[-1]) == ("batch", "interactive")


def test_a_stream_keeps_its_version_when_another_comes(stage, copy, spare):
    async def main() -> None:
        scene = stage(copy)
        client = scene.client()
        rows = make_rows(6)
        client.send(rows[:3])
        await client.got(3)
        spare.rename(copy / "words" / "3")
        scene.context.repository.load()
        assert scene.context.repository.find("words").version == "3"
        client.send(rows[3:])
        client.end()
        await client.done()
        expect_right(read_lines(client.content)[0], rows)

    run(main)


def test_broken_compression_comes_after_the_rows_before_it(stage):
    async def main() -> None:
        packed = gzip.compress(lines(make_rows(2000)))
        for body in (packed[:-20], packed[:-8] + bytes(8)):
            client = stage().client(content_encoding="gzip")
            client.send_bytes(body, more=False)
            await client.done()
            *records, last = [json.loads(line) for line in client.content.splitlines()]
            expect_right(records, make_rows(2000)[: len(records)])
            assert (last["code"], client.ended) == ("unreadable_body", False)

    run(main)


def test_what_a_stream_did_is_counted(stage):
    async def main() -> None:
        scene = stage()
        client = scene.client()
        client.send([*make_rows(3), b"{"])
        client.end()
        await client.done()
        counted = scene.context.metrics.counters["streamed_rows"]
        assert counted == {("words", "scored"): 3, ("words", "failed"): 1}

    run(main)
