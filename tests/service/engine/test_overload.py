"""Overload, timeouts, priorities and disconnects, as a client sees them."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from starlette.types import ASGIApp, Message

from hsoftmax.service import Settings, create_app
from hsoftmax.service.context import AppContext, context_of
from hsoftmax.service.logging import json_log
from tests.service.conftest import HIDDEN

from .conftest import PATIENCE, Held

QUERY = {"inputs": [[0.5] * HIDDEN]}
URL = "/v1/models/words/probabilities"


@dataclass
class Client:
    """One request over ASGI; `left` closes its connection."""

    app: ASGIApp
    left: asyncio.Event = field(default_factory=asyncio.Event)
    reads: asyncio.Event = field(default_factory=asyncio.Event)
    messages: list[Message] = field(default_factory=list)
    sent: bool = False

    async def ask(self, query: dict | None = None, path: str = URL, **headers: str) -> "Client":
        scope = {
            "type": "http",
            "method": "GET" if query is None else "POST",
            "path": path,
            "query_string": b"",
            "headers": [
                (name.replace("_", "-").encode(), v.encode()) for name, v in headers.items()
            ],
        }
        self._body = json.dumps(query).encode()
        await self.app(scope, self._receive, self._send)
        return self

    @property
    def status(self) -> int:
        return self.messages[0]["status"]

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def json(self) -> dict:
        return json.loads(b"".join(m.get("body", b"") for m in self.messages[1:]))

    async def _receive(self) -> Message:
        if not self.sent:
            self.sent = True
            return {"type": "http.request", "body": self._body}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.messages.append(message)


@dataclass
class Scene:
    """An app whose full distributions are held."""

    app: ASGIApp
    context: AppContext
    runtime: Held

    def client(self) -> Client:
        return Client(self.app)

    def asking(self, **headers: str) -> tuple[Client, "asyncio.Task[Client]"]:
        client = self.client()
        return client, asyncio.create_task(client.ask(QUERY, **headers))

    async def running(self) -> "asyncio.Task[Client]":
        """A client whose graph runs and is held."""
        _, task = self.asking()
        await self.runtime.begun()
        return task

    async def busy(self) -> "asyncio.Future[list[Client]]":
        """A client whose graph runs, and another one that waits for it."""
        running = await self.running()
        _, waiting = self.asking()
        await self.waiting(1)
        return asyncio.gather(running, waiting)

    async def waiting(self, number: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.context.engine.waiting()["full"] != number:
                await asyncio.sleep(0)


@pytest.fixture
def stage(repository, monkeypatch) -> Callable[..., Scene]:
    monkeypatch.setattr("hsoftmax.service.context.INLINE_MAX_COST", 0)
    cores = []

    def stage(**settings) -> Scene:
        told = Settings(repository=repository, threads=1, **settings)
        app = create_app(told, log=json_log("error"))
        context = context_of(app)
        cores.append(context)
        context.load()
        runtime = _Whole("log_probs")
        runtime.hold()
        session = context.repository.find("words").sessions["log_probs"]
        object.__setattr__(session, "runtime", runtime)
        return Scene(app, context, runtime)

    yield stage
    for context in cores:
        context.engine.close()


class _Whole(Held):
    def _result(self, feeds):
        return feeds["hidden"] - 1


def test_overload_is_429_with_retry_after_and_health_is_exempt(stage):
    scene = stage(max_queue_requests=1)

    async def main() -> None:
        both = await scene.busy()
        refused = await scene.client().ask(QUERY)
        assert refused.status == 429
        assert refused.json["code"] == "overloaded"
        assert int(refused.headers["retry-after"]) >= 1
        for path in ("/healthz/live", "/healthz/ready", "/metrics"):
            assert (await scene.client().ask(path=path)).status == 200
        scene.runtime.let_all_go()
        assert [client.status for client in await both] == [200, 200]

    asyncio.run(main())


def test_only_a_request_without_room_is_rejected_before_it_is_decoded(stage):
    scene = stage(max_queue_requests=1)

    async def main() -> None:
        both = await scene.busy()
        unreadable = {"inputs": "no rows"}
        assert (await scene.client().ask(unreadable)).status == 429
        assert (await scene.client().ask(unreadable | {"targets": [1]})).status == 422
        assert (await scene.client().ask(unreadable, path=URL[:-13] + "top_k")).status == 422
        for path in ("nothing", "words"):
            url = f"/v1/models/{path}/probabilities"
            assert (await scene.client().ask(unreadable, path=url)).status in (404, 429)
        scene.runtime.let_all_go()
        await both
        assert (await scene.client().ask(unreadable)).status == 422

    asyncio.run(main())


def test_the_engine_s_metrics_are_on_the_page(stage):
    scene = stage(max_queue_requests=2)

    async def main() -> str:
        running = await scene.running()
        left, leaving = scene.asking()
        _, expiring = scene.asking(x_hsoftmax_timeout_ms="1")
        await scene.waiting(2)
        await scene.client().ask(QUERY)
        left.left.set()
        await asyncio.gather(leaving, expiring)
        scene.runtime.let_all_go()
        await running
        page = await scene.client().ask(path="/metrics")
        return b"".join(m.get("body", b"") for m in page.messages[1:]).decode()

    page = asyncio.run(main())
    for line in (
        'hsoftmax_rejected_total{lane="full"} 1.0',
        'hsoftmax_cancelled_total{lane="full"} 1.0',
        'hsoftmax_expired_total{lane="full"} 1.0',
        'hsoftmax_queue_depth{lane="full"} 0.0',
        'hsoftmax_batch_rows_count{lane="full"} 1.0',
        'hsoftmax_batched_requests_total{lane="full"} 1.0',
    ):
        assert line in page


def test_a_deadline_by_header_is_504(stage):
    scene = stage()

    async def main() -> None:
        running = await scene.running()
        late = await scene.client().ask(QUERY, x_hsoftmax_timeout_ms="5")
        assert (late.status, late.json["code"]) == (504, "deadline_exceeded")
        scene.runtime.let_all_go()
        assert (await running).status == 200

    asyncio.run(main())


def test_a_deadline_by_default_is_504(stage):
    late = asyncio.run(stage(timeout=0.01).client().ask(QUERY))
    assert (late.status, late.json["code"]) == (504, "deadline_exceeded")


@pytest.mark.parametrize("bad", ["0", "-1", "1.5", "3600001", "soon", "9" * 40, ""])
def test_a_bad_timeout_is_refused(stage, bad):
    refused = asyncio.run(stage().client().ask(QUERY, x_hsoftmax_timeout_ms=bad))
    assert (refused.status, refused.json["code"]) == (422, "invalid_query")
    assert "x-hsoftmax-timeout-ms: expected 1 to 3600000 milliseconds" in refused.json["error"]


def test_an_unknown_priority_is_refused(stage):
    refused = asyncio.run(stage().client().ask(QUERY, x_hsoftmax_priority="high"))
    assert refused.status == 422
    assert "expected interactive or batch, got 'high'" in refused.json["error"]


def test_low_priority_is_refused_first(stage):
    scene = stage(max_queue_requests=2)

    async def main() -> None:
        tasks = [await scene.running()]
        tasks.append(scene.asking()[1])
        await scene.waiting(1)
        refused = await scene.client().ask(QUERY, x_hsoftmax_priority="batch")
        assert refused.status == 429
        tasks.append(scene.asking(x_hsoftmax_priority="interactive")[1])
        await scene.waiting(2)
        scene.runtime.let_all_go()
        assert [(await task).status for task in tasks] == [200] * 3

    asyncio.run(main())


def test_a_client_that_disconnects_cancels_its_call(stage):
    scene = stage()

    async def main() -> None:
        first, running = scene.asking()
        await scene.runtime.begun()
        second, waiting = scene.asking()
        await scene.waiting(1)
        second.left.set()
        await waiting
        assert scene.context.engine.waiting()["full"] == 0
        first.left.set()
        await running
        assert await asyncio.to_thread(scene.runtime.terminated.wait, PATIENCE)
        assert not first.messages
        assert not second.messages

    asyncio.run(main())


def test_many_disconnects_do_not_disturb_others(stage):
    scene = stage()

    async def main() -> None:
        running = await scene.running()
        storm = [scene.asking() for _ in range(200)]
        await scene.waiting(200)
        for client, _ in storm[::2]:
            client.left.set()
        await asyncio.gather(*(task for _, task in storm[::2]))
        await scene.waiting(100)
        scene.runtime.let_all_go()
        await running
        kept = await asyncio.gather(*(task for _, task in storm[1::2]))
        assert {client.status for client in kept} == {200}
        await asyncio.sleep(0)  # a watcher that is cancelled ends at the next turn of the loop
        assert len(asyncio.all_tasks()) == 1  # no watcher is left

    asyncio.run(main())


def test_a_slow_reader_does_not_delay_others(stage):
    scene = stage()
    scene.runtime.let_all_go()

    async def main() -> None:
        slow = scene.client()
        slow._send = _never_read(slow)
        stalled = asyncio.create_task(slow.ask(QUERY))
        await slow.reads.wait()
        for _ in range(20):
            assert (await scene.client().ask(QUERY)).status == 200
        assert not stalled.done()
        assert sum(scene.context.engine.waiting().values()) == 0
        stalled.cancel()

    asyncio.run(main())


def _never_read(client: Client) -> Callable:
    async def send(message: Message) -> None:
        client.messages.append(message)
        if message["type"] == "http.response.body":
            client.reads.set()
            await asyncio.Event().wait()

    return send


def test_liveness_reports_a_stuck_run(stage):
    scene = stage(timeout=0.25)  # long enough for a thread to take it, or nothing gets stuck
    scene.runtime.deaf = True

    async def main() -> None:
        assert (await scene.client().ask(QUERY)).status == 504
        async with asyncio.timeout(PATIENCE):
            while (live := await scene.client().ask(path="/healthz/live")).status == 200:
                await asyncio.sleep(0.005)
        assert (live.status, live.json["code"]) == (503, "not_alive")
        assert live.json["error"] == "not alive: a run is stuck"
        scene.runtime.let_all_go()

    asyncio.run(main())
