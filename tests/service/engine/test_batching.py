"""Waiting calls run together, and the results are those of single runs."""

import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest

from hsoftmax.service.engine import INLINE_MAX_COST
from hsoftmax.service.engine.call import Lane
from hsoftmax.service.errors import InferenceFailed

from .conftest import begun, held, pairs, rows


def answers(outputs) -> list[list[float]]:
    return [one.arrays[0].tolist() for one in outputs]


def behind_one(engine, session, calls) -> list:
    """The results of calls that all wait while one other call runs."""

    async def main() -> list:
        first = await begun(engine, calls[0])
        futures = [engine.submit(call) for call in calls]
        session.runtime.let_all_go()
        await first
        return await asyncio.gather(*futures)

    return asyncio.run(main())


def test_calls_that_queued_while_a_batch_ran_are_the_next_batch(engine, metrics):
    session = held()
    outputs = behind_one(engine, session, [rows(session, 1, 2), rows(session, 3), rows(session, 4)])
    assert answers(outputs) == [[1, 2], [3], [4]]
    assert metrics.batches == [("full", 2, 1), ("full", 4, 3)]
    assert all(one.queued > 0 and one.computed > 0 for one in outputs)


def test_an_idle_engine_answers_at_once_and_alone(engine, metrics):
    session = held()
    assert answers([asyncio.run(engine.run(rows(session, 5)))]) == [[5]]
    assert metrics.batches == [("full", 1, 1)]
    assert session.runtime.threads[0].startswith("compute")


def test_pairs_are_merged_with_their_rows_moved_along(engine, metrics):
    session = held("target_log_prob")

    async def main() -> list:
        first = await begun(engine, pairs(session, [9], [0], [0]))
        calls = [
            pairs(session, [1, 2], [0, 1, 1], [5, 6, 7]),
            pairs(session, [3], [0, 0], [8, 9]),
            pairs(session, [4, 5], [1, 0], [1, 2]),
        ]
        futures = [engine.submit(call) for call in calls]
        session.runtime.let_all_go()
        return await asyncio.gather(first, *futures)

    assert answers(asyncio.run(main()))[1:] == [[1005, 2006, 2007], [3008, 3009], [5001, 4002]]
    assert metrics.batches[1] == ("target", 5, 3)


def test_calls_that_differ_in_a_parameter_are_not_merged(engine, metrics):
    session = held("top_k")
    calls = [rows(session, v, k=np.array([k])) for v, k in ((1, 2), (2, 3), (3, 2))]
    outputs = behind_one(engine, session, calls)
    assert answers(outputs) == [[[1, 1]], [[2, 2, 2]], [[3, 3]]]
    assert sorted(metrics.batches[1:]) == [("top_k", 1, 1), ("top_k", 2, 2)]


def test_calls_of_two_sessions_are_not_merged(engine, metrics):
    session, other = held(), held()
    outputs = behind_one(engine, session, [rows(session, 1), rows(other, 2), rows(session, 3)])
    assert answers(outputs) == [[1], [2], [3]]
    assert len(session.runtime.ran) == 2
    assert len(other.runtime.ran) == 1


def test_isolated_calls_share_no_batch(engine, metrics):
    session = held()
    calls = [rows(session, float(i), isolated=True) for i in range(3)]
    assert answers(behind_one(engine, session, calls)) == [[0], [1], [2]]
    assert [number for _, _, number in metrics.batches] == [1, 1, 1, 1]


def test_a_batch_has_a_maximum_cost(engine, metrics):
    session = held()
    calls = [rows(session, v, cost=2**27) for v in range(1, 21)]
    outputs = behind_one(engine, session, calls)
    assert answers(outputs) == [[v] for v in range(1, 21)]
    assert [requests for _, _, requests in metrics.batches] == [1, 8, 8, 4]


def test_an_oversized_request_is_sliced_and_answered_whole(engine):
    session = held()
    values = range(100)
    (output,) = asyncio.run(_gather(engine, [rows(session, *values, cost=2**28)]))
    assert output.arrays[0].tolist() == list(values)
    assert [len(feeds["hidden"]) for feeds in session.runtime.ran] == [8] * 12 + [4]


def test_one_item_larger_than_any_batch_is_still_computed(engine):
    session = held("target_log_prob")
    call = pairs(session, [1, 2], [0, 1], [3, 4], cost=2**40)
    (output,) = asyncio.run(_gather(engine, [call]))
    assert output.arrays[0].tolist() == [1003, 2004]
    assert len(session.runtime.ran) == 2


def test_sliced_pairs_take_only_the_rows_that_they_point_at(engine):
    session = held("target_log_prob")
    row = np.repeat(np.arange(10), 3)
    call = pairs(session, range(10), row, range(30), cost=2**24)
    (output,) = asyncio.run(_gather(engine, [call]))
    assert output.arrays[0].tolist() == [1000 * r + t for t, r in enumerate(row)]
    assert [len(feeds["hidden"]) for feeds in session.runtime.ran] == [3, 4, 3, 2]


def test_a_small_request_does_not_wait_for_all_slices_of_a_large_one(engine):
    session = held()
    order: list[str] = []

    async def main() -> None:
        session.runtime.hold()
        large = engine.submit(rows(session, *range(100), cost=2**27))
        large.add_done_callback(lambda _: order.append("large"))
        await session.runtime.begun()
        small = engine.submit(rows(session, 7, cost=2**27))
        small.add_done_callback(lambda _: order.append("small"))
        session.runtime.let_all_go()
        await asyncio.gather(large, small)

    asyncio.run(main())
    assert order == ["small", "large"]


def test_without_batching_every_call_is_alone(start, metrics):
    session = held()
    outputs = behind_one(start(batching=False), session, [rows(session, v) for v in (1, 2, 3)])
    assert answers(outputs) == [[1], [2], [3]]
    assert [requests for _, _, requests in metrics.batches] == [1] * 4


def test_a_small_call_runs_inline(engine):
    session = held()
    outputs = asyncio.run(engine.run(rows(session, 1, cost=INLINE_MAX_COST)))
    assert session.runtime.threads == [threading.current_thread().name]
    assert outputs.queued == 0
    assert outputs.computed > 0


def test_a_small_call_waits_where_others_wait(engine):
    session = held()

    async def main() -> list:
        futures = [await begun(engine, rows(session, 0.0))]
        futures.append(engine.submit(rows(session, 1)))
        tiny = rows(session, 2, cost=1)
        assert not engine.is_small(tiny)
        futures.append(engine.submit(tiny))
        session.runtime.let_all_go()
        return await asyncio.gather(*futures)

    assert answers(asyncio.run(main())) == [[0], [1], [2]]


def test_a_device_runs_nothing_inline(start):
    session = held()
    assert start().is_small(rows(session, 1, cost=1))
    assert not start().is_small(rows(replace(session, on_cpu=False), 1, cost=1))


@pytest.mark.parametrize("threads", [1, 4])
def test_a_large_call_leaves_the_event_loop_free(start, threads):
    session = held()
    engine = start(threads)

    async def main() -> None:
        session.runtime.hold()
        running = asyncio.create_task(engine.run(rows(session, 1)))
        await session.runtime.begun()
        assert not running.done()
        session.runtime.let_all_go()
        await running

    asyncio.run(main())


def test_a_graph_with_too_few_outputs_fails_its_own_request(engine):
    session = held()
    session.runtime._result = lambda feeds: np.zeros(7)
    with pytest.raises(InferenceFailed):
        asyncio.run(engine.run(rows(session, 1)))


def test_waiting_requests_are_counted_by_lane(engine):
    session = held()

    async def main() -> dict:
        futures = [await begun(engine, rows(session, 0.0))]
        futures += [engine.submit(rows(session, 1)) for _ in range(3)]
        depth = engine.waiting()
        session.runtime.let_all_go()
        await asyncio.gather(*futures)
        return depth

    assert asyncio.run(main()) == {Lane.TARGET: 0, Lane.TOP_K: 0, Lane.FULL: 3}
    assert engine.waiting()[Lane.FULL] == 0


async def _gather(engine, calls) -> list:
    return await asyncio.gather(*(engine.submit(call) for call in calls))
