"""Flow control of streams: back pressure, timeouts and disconnects in both directions."""

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
class StreamClient:
    """One score request over ASGI. It sends on command, and can stop to read the response."""

    app: ASGIApp
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    num_receives: int = 0  # number of body chunks that the service has requested
    messages: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        self._reading = asyncio.Event()
        self._reading.set()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        headers = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        scope = {"type": "http", "method": "POST", "path": URL, "headers": headers,
                 "query_string": self.query.encode()}  # fmt: skip
        await self.app(scope, self._receive, self._send)

    def send(self, rows: list) -> None:
        self.send_bytes(lines(rows))

    def send_bytes(self, body: bytes, more: bool = True) -> None:
        self._incoming.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def end(self) -> None:
        self.send_bytes(b"", more=False)

    def disconnect(self) -> None:
        self._incoming.put_nowait({"type": "http.disconnect"})

    def stop_reading(self) -> None:
        self._reading.clear()

    def resume_reading(self) -> None:
        self._reading.set()

    async def wait_done(self) -> "StreamClient":
        async with asyncio.timeout(PATIENCE):
            await self._task
        return self

    async def wait_for_records(self, records: int) -> list[dict]:
        """Wait until the response has this number of records, and return all of them."""
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
        """True if the response was completed, False if its connection was cut."""
        return bool(self.messages) and not self.messages[-1].get("more_body", False)

    async def _receive(self) -> Message:
        self.num_receives += 1
        return await self._incoming.get()

    async def _send(self, message: Message) -> None:
        await self._reading.wait()
        self.messages.append(message)


@dataclass
class HeldApp:
    """An app whose graph for target queries can be held."""

    app: ASGIApp
    context: AppContext
    runtime: "_HeldGraph"

    def client(self, query: str = "", **headers: str) -> StreamClient:
        return StreamClient(self.app, query, {n.replace("_", "-"): v for n, v in headers.items()})


class _HeldGraph(Held):
    """The real graph, which runs when it is not held."""

    def __init__(self, real) -> None:
        super().__init__("target_log_prob")
        self._real = real

    def _result(self, feeds):
        (log_prob,) = self._real.run(["log_prob"], feeds)
        return log_prob


@pytest.fixture
def start_app(repository, monkeypatch) -> Callable[..., HeldApp]:
    monkeypatch.setattr("hsoftmax.service.context.INLINE_MAX_COST", 0)
    contexts = []

    def start_app(repository=repository, **settings) -> HeldApp:
        app_settings = Settings(repository=repository, threads=1, native="off", **settings)
        app = create_app(app_settings, log=json_log("error"))
        context = context_of(app)
        contexts.append(context)
        context.load()
        session = context.repository.find("words").sessions["target_log_prob"]
        runtime = _HeldGraph(session.runtime)
        object.__setattr__(session, "runtime", runtime)
        return HeldApp(app, context, runtime)

    yield start_app
    for context in contexts:
        context.engine.close()


def expect_correct(records: list[dict], rows: list[dict]) -> None:
    hidden = np.array([row["input"] for row in rows], dtype=np.float32)
    target = np.array([row["target"] for row in rows])
    wanted = target_log_prob(SERVED["words", 2], hidden, np.arange(len(rows)), target)
    np.testing.assert_allclose([r["log_prob"] for r in records], wanted, atol=TOLERANCE)


def run(main) -> None:
    asyncio.run(main())


def test_a_sender_that_waits_for_answers_gets_them(start_app):
    async def main() -> None:
        client = start_app().client()
        rows = make_rows(12)
        for i in range(0, 12, 3):
            client.send(rows[i : i + 3])
            assert len(await client.wait_for_records(i + 3)) == i + 3
        client.end()
        await client.wait_done()
        records, *_ = read_lines(client.content)
        expect_correct(records, rows)
        assert client.ended

    run(main)


def test_a_line_may_come_in_any_pieces(start_app):
    async def main() -> None:
        client = start_app().client()
        rows = make_rows(3)
        for byte in lines(rows):
            client.send_bytes(bytes([byte]))
        client.end()
        await client.wait_done()
        expect_correct(read_lines(client.content)[0], rows)

    run(main)


def test_a_client_that_does_not_read_stops_the_reading_of_its_body(start_app):
    async def main() -> None:
        client = start_app(stream_spool_bytes=0).client("task=sample&num_samples=200")
        client.stop_reading()
        pieces = 1500  # the records of each have 9 kilobytes
        rows = make_rows(1)
        for _ in range(pieces):
            client.send(rows)
        client.end()
        num_receives = -1
        while num_receives != client.num_receives:
            num_receives = client.num_receives
            await asyncio.sleep(0.3)
        assert num_receives < 400
        client.resume_reading()
        await client.wait_done()
        records, *_ = read_lines(client.content)
        assert len(records) == pieces

    run(main)


def test_a_client_that_sends_all_before_it_reads_is_read_to_the_end(start_app):
    async def main() -> None:
        client = start_app().client("task=sample&num_samples=200")
        client.stop_reading()
        pieces = 600
        for _ in range(pieces):
            client.send(make_rows(1))
        client.end()
        async with asyncio.timeout(PATIENCE):
            while client.num_receives < pieces + 2:
                await asyncio.sleep(0.01)
        client.resume_reading()
        await client.wait_done()
        assert len(read_lines(client.content)[0]) == pieces
        assert client.ended

    run(main)


def test_a_client_that_never_reads_is_disconnected(start_app):
    async def main() -> None:
        held_app = start_app(stream_timeout=0.2, max_streams=1)
        client = held_app.client()
        client.stop_reading()
        client.send(make_rows(3))
        client.end()
        await client.wait_done()
        assert client.messages == []
        again = held_app.client()
        again.send(make_rows(3))
        again.end()
        await again.wait_done()
        assert again.status == 200

    run(main)


def test_a_client_that_stops_sending_gets_an_error(start_app):
    async def main() -> None:
        held_app = start_app(stream_timeout=0.2)
        idle = await held_app.client().wait_done()
        assert (idle.status, json.loads(idle.content)["code"]) == (408, "slow_body")
        begun = held_app.client()
        begun.send(make_rows(2))
        await begun.wait_done()
        *records, last = [json.loads(line) for line in begun.content.splitlines()]
        expect_correct(records, make_rows(2))
        assert (last["code"], begun.ended) == ("slow_body", False)

    run(main)


def test_a_client_that_waits_for_results_is_not_idle(start_app):
    async def main() -> None:
        held_app = start_app(stream_timeout=0.2)
        held_app.runtime.hold()
        client = held_app.client()
        client.send(make_rows(2))
        await asyncio.sleep(0.6)
        held_app.runtime.let_all_go()
        await client.wait_for_records(2)
        client.end()
        await client.wait_done()
        assert client.ended

    run(main)


def test_a_disconnect_cancels_the_running_graph(start_app):
    async def main() -> None:
        held_app = start_app()
        held_app.runtime.hold()
        client = held_app.client()
        client.send(make_rows(2))
        await held_app.runtime.begun()
        client.disconnect()
        await client.wait_done()
        assert client.messages == []
        assert held_app.runtime.terminated.wait(PATIENCE)

    run(main)


def test_a_body_that_is_cut_short_has_no_summary(start_app):
    async def main() -> None:
        client = start_app().client()
        client.send(make_rows(2))
        await client.wait_for_records(2)
        client.disconnect()
        await client.wait_done()
        assert b"summary" not in client.content
        assert not client.ended

    run(main)


def test_streams_are_bounded_in_number(start_app):
    async def main() -> None:
        held_app = start_app(max_streams=1)
        first = held_app.client()
        first.send(make_rows(1))
        await first.wait_for_records(1)
        second = await held_app.client().wait_done()
        assert (second.status, json.loads(second.content)["code"]) == (429, "overloaded")
        assert int(dict(second.messages[0]["headers"])[b"retry-after"]) >= 1
        first.end()
        await first.wait_done()
        assert first.ended

    run(main)


def test_a_full_lane_makes_rows_wait_and_none_fail(start_app):
    async def main() -> None:
        held_app = start_app(max_queue_requests=2)
        held_app.runtime.hold()
        clients = [held_app.client() for _ in range(4)]
        for client in clients:
            for row in make_rows(8):
                client.send([row])
            client.end()
        async with asyncio.timeout(PATIENCE):
            while not held_app.context.metrics.counters["rejected"]:
                await asyncio.sleep(0.01)
        held_app.runtime.let_all_go()
        for client in clients:
            await client.wait_done()
            records, _, summary = read_lines(client.content)
            expect_correct(records, make_rows(8))
            assert summary["failed"] == 0

    run(main)


def test_a_failing_graph_fails_only_its_rows(start_app):
    async def main() -> None:
        held_app = start_app()
        client = held_app.client()
        rows = make_rows(9)
        for i in range(0, 9, 3):
            held_app.runtime.poison = rows[4]["input"][0]
            client.send(rows[i : i + 3])
            await client.wait_for_records(i + 3)
        client.end()
        await client.wait_done()
        records, _, summary = read_lines(client.content)
        failed = [record for record in records if "code" in record]
        assert failed
        assert {record["code"] for record in failed} == {"inference_failed"}
        assert {record["id"] for record in failed} <= {3, 4, 5}
        assert summary["rows_in"] == 9
        assert client.ended

    run(main)


def test_rows_beyond_their_deadline_are_errors(start_app):
    async def main() -> None:
        held_app = start_app()
        held_app.runtime.hold()
        client = held_app.client(x_hsoftmax_timeout_ms="50")
        client.send(make_rows(2))
        records = await client.wait_for_records(2)
        assert [record["code"] for record in records] == ["deadline_exceeded"] * 2
        held_app.runtime.let_all_go()
        client.end()
        await client.wait_done()
        assert client.ended

    run(main)


def test_streams_have_batch_priority_by_default(start_app):
    priorities = []

    async def main() -> None:
        held_app = start_app()
        submit = held_app.context.engine.submit
        held_app.context.engine.submit = lambda call: (
            priorities.append(call.priority),
            submit(call),
        )[1]
        for headers in ({}, {"x_hsoftmax_priority": "interactive"}):
            client = held_app.client(**headers)
            client.send(make_rows(2))
            client.end()
            await client.wait_done()

    run(main)
    assert (priorities[0], priorities[-1]) == ("batch", "interactive")


def test_a_stream_keeps_its_version_when_a_newer_one_is_loaded(start_app, copy, spare):
    async def main() -> None:
        held_app = start_app(copy)
        client = held_app.client()
        rows = make_rows(6)
        client.send(rows[:3])
        await client.wait_for_records(3)
        spare.rename(copy / "words" / "3")
        held_app.context.repository.load()
        assert held_app.context.repository.find("words").version == "3"
        client.send(rows[3:])
        client.end()
        await client.wait_done()
        expect_correct(read_lines(client.content)[0], rows)

    run(main)


def test_broken_compression_comes_after_the_rows_before_it(start_app):
    async def main() -> None:
        packed = gzip.compress(lines(make_rows(2000)))
        for body in (packed[:-20], packed[:-8] + bytes(8)):
            client = start_app().client(content_encoding="gzip")
            client.send_bytes(body, more=False)
            await client.wait_done()
            *records, last = [json.loads(line) for line in client.content.splitlines()]
            expect_correct(records, make_rows(2000)[: len(records)])
            assert (last["code"], client.ended) == ("unreadable_body", False)

    run(main)


def test_rows_of_a_stream_are_counted(start_app):
    async def main() -> None:
        held_app = start_app()
        client = held_app.client()
        client.send([*make_rows(3), b"{"])
        client.end()
        await client.wait_done()
        counted = held_app.context.metrics.counters["streamed_rows"]
        assert counted == {("words", "scored"): 3, ("words", "failed"): 1}

    run(main)
