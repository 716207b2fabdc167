"""A failed call fails alone, and `fault` reports dead and stuck threads."""

import asyncio
import io
import json
import time
from contextlib import closing

import pytest

from hsoftmax.service.engine import Engine, QueueLimits, executor
from hsoftmax.service.engine.cost_model import CostModel
from hsoftmax.service.errors import InferenceFailed, NotReady
from hsoftmax.service.logging import json_log

from .conftest import PATIENCE, begun, held, rows


async def batched(engine, session, values) -> list:
    """The outcomes of calls that form one batch."""
    first = await begun(engine, rows(session, 0.0))
    futures = [engine.submit(rows(session, v)) for v in values]
    session.runtime.let_all_go()
    await first
    return await asyncio.gather(*futures, return_exceptions=True)


def test_a_failing_request_fails_alone(engine):
    session = held()
    session.runtime.poison = 2
    outcomes = asyncio.run(batched(engine, session, (1, 2, 3)))
    assert outcomes[0].arrays[0].tolist() == [1]
    assert isinstance(outcomes[1], InferenceFailed)
    assert "secret" not in str(outcomes[1])
    assert outcomes[2].arrays[0].tolist() == [3]
    assert [len(feeds["hidden"]) for feeds in session.runtime.ran] == [1, 3, 1, 1, 1]


def test_the_engine_goes_on_after_a_failure(engine):
    session = held()
    session.runtime.poison = 1

    async def main() -> None:
        with pytest.raises(InferenceFailed):
            await engine.submit(rows(session, 1))
        await engine.submit(rows(session, 2))

    asyncio.run(main())
    assert engine.fault() is None


def test_a_call_that_fails_inline_fails_alike(engine):
    session = held()
    session.runtime.poison = 1
    with pytest.raises(InferenceFailed):
        asyncio.run(engine.run(rows(session, 1, cost=1)))


def test_a_thread_that_dies_is_replaced_and_its_requests_answered(engine):
    session = held()
    session.runtime.poison, session.runtime.error = 1, SystemExit

    async def main() -> None:
        with pytest.raises(InferenceFailed):
            await engine.submit(rows(session, 1))
        outputs = await engine.submit(rows(session, 2))
        assert outputs.arrays[0].tolist() == [2]

    asyncio.run(main())
    assert session.runtime.threads[0] != session.runtime.threads[1]
    assert engine.fault() is None


def test_every_call_of_a_batch_whose_thread_dies_is_answered(engine):
    session = held()
    session.runtime.poison, session.runtime.error = 2, SystemExit
    outcomes = asyncio.run(batched(engine, session, (1, 2, 3)))
    assert [type(one) for one in outcomes] == [InferenceFailed] * 3


def test_a_call_that_fails_alone_is_not_run_again(engine):
    session = held()
    session.runtime.poison = 1

    async def main() -> None:
        with pytest.raises(InferenceFailed):
            await engine.submit(rows(session, 1))
        await engine.submit(rows(session, 2))

    asyncio.run(main())
    assert [feeds["hidden"][0, 0] for feeds in session.runtime.ran] == [1, 2]


def test_a_run_is_stuck_after_twice_its_timeout(start, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(executor, "monotonic", lambda: now)
    engine = start(timeout=30)
    session = held()
    session.runtime.deaf = True

    async def main() -> None:
        nonlocal now
        running = await begun(engine, rows(session, 1))
        for seconds, fault in ((59.9, None), (60.1, "a run is stuck")):
            now = 1000.0 + seconds
            assert engine.fault() == fault
        session.runtime.let_all_go()
        await running

    asyncio.run(main())


def test_a_batch_is_logged_with_its_lane_size_and_outcome(metrics):
    stream, session = io.BytesIO(), held()
    session.runtime.poison = 3
    limits = QueueLimits(1000, 10**6, 10**9)
    log = json_log("debug", stream)
    with closing(Engine(1, log, metrics, limits=limits, timeout=60.0)) as engine:
        asyncio.run(batched(engine, session, (1, 2)))
        asyncio.run(batched(engine, session, (3,)))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    batches = [line for line in lines if line["event"] == "batch"]
    assert [(b["rows"], b["requests"], b["failed"]) for b in batches] == [
        (1, 1, False), (2, 2, False), (1, 1, False), (1, 1, True),
    ]  # fmt: skip
    assert {(b["lane"], b["task"], b["level"]) for b in batches} == {("full", "log_probs", "debug")}
    assert all(0 < b["ms"] < 10_000 for b in batches)


def test_the_death_of_a_thread_is_logged(metrics):
    stream, session = io.BytesIO(), held()
    session.runtime.poison, session.runtime.error = 1, SystemExit
    limits = QueueLimits(1000, 10**6, 10**9)
    log = json_log("info", stream)
    with closing(Engine(1, log, metrics, limits=limits, timeout=60.0)) as engine:
        (outcome,) = asyncio.run(batched(engine, session, (1,)))
    assert isinstance(outcome, InferenceFailed)
    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert events.count("compute_thread_died") == 1


def test_a_thread_that_ends_for_good_is_reported(start, monkeypatch):
    session = held()
    session.runtime.poison, session.runtime.error = 1, SystemExit
    engine = start()
    (thread,) = (one.thread for one in engine._executor._threads)
    monkeypatch.setattr(engine._executor, "_replace", lambda *_: None)
    asyncio.run(_abandoned(engine, session))
    thread.join(PATIENCE)
    assert engine.fault() == "a compute thread has ended"


async def _abandoned(engine, session) -> None:
    engine.submit(rows(session, 1))
    await session.runtime.begun()


def test_a_stuck_run_is_reported_until_it_ends(start):
    engine = start(timeout=0.01)
    session = held()
    session.runtime.deaf = True

    async def main() -> None:
        stuck = await begun(engine, rows(session, 1))
        assert engine.fault() is None
        with pytest.raises(Exception, match="longer than"):
            await stuck
        await _until(lambda: engine.fault() == "a run is stuck")
        session.runtime.let_all_go()
        await _until(lambda: engine.fault() is None)

    asyncio.run(main())


def test_a_short_timeout_does_not_make_a_run_stuck(start):
    engine = start(timeout=60)
    session = held()
    session.runtime.deaf = True

    async def main() -> None:
        session.runtime.hold()
        with pytest.raises(Exception, match="longer than"):
            await engine.submit(rows(session, 1, timeout=0.001))
        await asyncio.sleep(0.02)
        assert engine.fault() is None
        session.runtime.let_all_go()

    asyncio.run(main())


def test_an_idle_engine_closes_at_once(start):
    engine = start(4)
    started = time.monotonic()
    engine.close()
    assert time.monotonic() - started < 2
    assert not any(one.thread.is_alive() for one in engine._executor._threads)


def test_a_busy_engine_stops_runs_and_answers_waiting_calls(start):
    engine = start()
    session = held()

    async def main() -> list:
        running = await begun(engine, rows(session, 1))
        waiting = [engine.submit(rows(session, v)) for v in (2, 3)]
        engine.close()
        return await asyncio.gather(running, *waiting, return_exceptions=True)

    outcomes = asyncio.run(main())
    assert [type(one) for one in outcomes] == [NotReady] * 3
    assert session.runtime.terminated.is_set()


def test_a_closed_engine_takes_nothing(start):
    engine = start()
    engine.close()
    with pytest.raises(NotReady, match="stopping"):
        asyncio.run(engine.run(rows(held(), 1)))


async def _until(condition) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


def test_only_runs_that_succeed_teach_the_cost_model(engine, monkeypatch):
    observed = []
    monkeypatch.setattr(CostModel, "observe", lambda _, lane, cost, seconds: observed.append(cost))
    session = held()
    session.runtime.poison = 2
    session.runtime.let_all_go()

    async def main() -> None:
        await engine.submit(rows(session, 1.0))
        with pytest.raises(InferenceFailed):
            await engine.submit(rows(session, 2.0))

    asyncio.run(main())
    assert observed == [2**22]
