"""Lanes are bounded, and a rejection names the seconds after which to try again."""

import asyncio

import pytest

from hsoftmax.service.engine import QueueLimits
from hsoftmax.service.errors import DeadlineExceeded, Overloaded

from .conftest import begun, held, pairs, rows, urgent

MANY = 10**9


def filled(engine, session, number: int, call) -> tuple[int, list[Overloaded]]:
    """Submit the call many times behind one that runs; the number admitted, and the rejections."""

    async def main() -> tuple[int, list[Overloaded]]:
        futures = [await begun(engine, rows(session, 0.0))]
        refusals = []
        for _ in range(number):
            try:
                futures.append(engine.submit(call))
            except Overloaded as error:
                refusals.append(error)
        session.runtime.let_all_go()
        await asyncio.gather(*futures)
        return len(futures) - 1, refusals

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("limits", "admitted"),
    [
        (QueueLimits(4, MANY, MANY), 4),
        (QueueLimits(MANY, 7, MANY), 3),
        (QueueLimits(MANY, MANY, 100), 6),  # 16 bytes each: two rows of two floats
        (QueueLimits(1, 1, 1), 1),
    ],
)
def test_a_lane_is_bounded_in_requests_rows_and_bytes(start, metrics, limits, admitted):
    session = held()
    got, refusals = filled(start(limits=limits), session, 10, rows(session, 1, 2))
    assert (got, len(refusals)) == (admitted, 10 - admitted)
    assert metrics.why["rejected"] == 10 - admitted
    assert all(error.retry_after == 1 for error in refusals)


def test_the_size_of_the_result_counts_too(start):
    session = held()
    engine = start(limits=QueueLimits(MANY, MANY, 1000))
    assert filled(engine, session, 10, rows(session, 1, values=100))[0] == 2


def test_low_priority_may_fill_half_a_lane(start):
    session = held()
    engine = start(limits=QueueLimits(10, MANY, MANY))
    assert filled(engine, session, 20, rows(session, 1, **urgent(True)))[0] == 5


def test_a_call_larger_than_the_limits_may_wait_alone(start):
    session = held()
    got, _ = filled(start(limits=QueueLimits(1, 1, 1)), session, 2, rows(session, *range(100)))
    assert got == 1


def test_a_full_lane_does_not_close_another(start):
    engine = start(limits=QueueLimits(1, MANY, MANY))
    full, target = held(), held("target_log_prob")

    async def main() -> None:
        futures = [await begun(engine, rows(full, 1))]
        futures.append(engine.submit(rows(full, 1)))
        with pytest.raises(Overloaded):
            engine.submit(rows(full, 1))
        futures.append(engine.submit(pairs(target, [1], [0], [0])))
        full.runtime.let_all_go()
        await asyncio.gather(*futures)

    asyncio.run(main())


def test_retry_after_is_the_time_that_the_queue_takes(start):
    session = held()
    engine = start(limits=QueueLimits(3, MANY, MANY))
    # 2**34 multiply-adds at the 0.3 ns that is assumed before any is measured: 5.2 s each.
    _, refusals = filled(engine, session, 4, rows(session, 1, cost=2**34))
    assert refusals[0].retry_after == 16


def test_retry_after_shrinks_with_more_threads(start):
    session = held("target_log_prob")
    engine = start(2, limits=QueueLimits(3, MANY, MANY))

    async def main() -> Overloaded:
        session.runtime.hold()
        call = pairs(session, [1], [0], [0], cost=2**34)
        futures = [engine.submit(call) for _ in range(2)]
        for _ in futures:
            await session.runtime.begun()
        futures += [engine.submit(call) for _ in range(3)]
        with pytest.raises(Overloaded) as refused:
            engine.submit(call)
        session.runtime.let_all_go()
        await asyncio.gather(*futures)
        return refused.value

    assert asyncio.run(main()).retry_after == 8


def test_a_deadline_passes_in_the_queue(engine, metrics):
    session = held()

    async def main() -> None:
        first = await begun(engine, rows(session, 0.0))
        late = engine.submit(rows(session, 1, timeout=0.02))
        with pytest.raises(DeadlineExceeded, match=r"longer than the 0\.02 s it had"):
            await late
        assert engine.waiting()["full"] == 0
        session.runtime.let_all_go()
        await first

    asyncio.run(main())
    assert metrics.why["expired"] == 1
    assert len(session.runtime.ran) == 1


def test_a_deadline_that_passes_while_it_runs_stops_the_run(start, metrics):
    session = held()
    engine = start(timeout=0.02)

    async def main() -> None:
        session.runtime.hold()
        with pytest.raises(DeadlineExceeded):
            await engine.submit(rows(session, 0.0))
        assert await asyncio.to_thread(session.runtime.terminated.wait, 10)
        session.runtime.let_all_go()
        await engine.submit(rows(session, 1, timeout=30))

    asyncio.run(main())
    assert metrics.why == {"expired": 1}


def test_responses_that_wait_for_encoding_take_room(start):
    engine = start(limits=QueueLimits(3, MANY, 10_000))
    session = held()

    async def main() -> None:
        writing = [asyncio.create_task(engine.run_in_idle(lambda: None)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            engine.submit(rows(session, 1))
        await engine.submit(pairs(held("target_log_prob"), [1], [0], [0]))
        await asyncio.gather(*writing)
        heavy = asyncio.create_task(engine.run_in_idle(lambda: None, num_bytes=9_990))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            engine.submit(rows(session, 1, 2))
        await heavy
        await engine.submit(rows(session, 1, 2))

    asyncio.run(main())
