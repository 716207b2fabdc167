"""The engine: what is small runs at once, what is large never holds up the event loop."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bundle import Graph, Port
from service.engine import INLINE_WORK, Engine
from service.errors import InferenceFailed
from service.log import json_log
from service.sessions import Session

GRAPH = Graph(file="fake.onnx", inputs=(), outputs=(Port(name="y", dtype="float32", shape=()),))


class FakeRuntime:
    """Runs until it is let go, or told to terminate."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.started = threading.Event()
        self.thread = ""

    def run(self, names, feeds, options) -> list:
        self.thread = threading.current_thread().name
        self.started.set()
        while not self.go.wait(0.005):
            if options is not None and options.terminate:
                raise RuntimeError("terminated")
        return [np.zeros(1)]


@pytest.fixture
def runtime():
    return FakeRuntime()


@pytest.fixture
def session(runtime):
    return Session("fake", GRAPH, runtime)


@pytest.fixture
def engine():
    engine = Engine(1, json_log("error"))
    yield engine
    engine.close()


def test_small_work_runs_in_place(engine, session, runtime):
    runtime.go.set()
    outputs = asyncio.run(engine.run(session, {}, work=INLINE_WORK))
    assert runtime.thread == threading.current_thread().name
    assert outputs.arrays == [np.zeros(1)]
    assert outputs.computed > 0


def test_large_work_leaves_the_event_loop_free(engine, session, runtime):
    async def main() -> None:
        running = asyncio.create_task(engine.run(session, {}, work=INLINE_WORK + 1))
        await asyncio.sleep(0.02)
        assert not running.done()
        runtime.go.set()
        await running

    asyncio.run(main())
    assert runtime.thread.startswith("compute")


def test_what_waits_for_a_thread_says_how_long(engine, session, runtime):
    async def main() -> list:
        both = [asyncio.create_task(engine.run(session, {}, work=2**40)) for _ in range(2)]
        await asyncio.sleep(0.05)
        runtime.go.set()
        return await asyncio.gather(*both)

    first, second = asyncio.run(main())
    assert first.queued < 0.04 < second.queued


def test_closing_terminates_what_runs(session, runtime):
    engine = Engine(1, json_log("error"))

    async def main() -> None:
        running = asyncio.create_task(engine.run(session, {}, work=2**40))
        await asyncio.to_thread(runtime.started.wait, 5)
        engine.close()
        with pytest.raises(InferenceFailed):
            await running

    asyncio.run(main())


def test_the_service_s_threads_end_with_it(engine):
    assert isinstance(engine._threads, ThreadPoolExecutor)
    engine.close()
    with pytest.raises(RuntimeError):
        asyncio.run(engine.call(lambda: None))
