"""The order in which waiting calls run."""

import asyncio
import time

import pytest

from hsoftmax.service.engine import QueueLimits
from hsoftmax.service.engine.call import Lane
from hsoftmax.service.engine.cost_model import CostModel
from hsoftmax.service.errors import Overloaded

from .conftest import PATIENCE, begun, held, pairs, rows, urgent


@pytest.fixture(autouse=True)
def _steady_pace(monkeypatch) -> None:
    """Keep the initial estimates of cost, because fake graphs take no time."""
    monkeypatch.setattr(CostModel, "observe", lambda *_: None)


def turns(engine, fill) -> list[str]:
    """The order in which the calls end that `fill` submits; it gets the function to submit with."""
    order: list[str] = []
    first = held()

    async def main() -> None:
        futures = [await begun(engine, rows(first, 0.0))]

        def submit(name: str, call) -> None:
            future = engine.submit(call)
            future.add_done_callback(lambda _: order.append(name))
            futures.append(future)

        fill(submit)
        first.runtime.let_all_go()
        await asyncio.gather(*futures)

    asyncio.run(main())
    return order


FULL_SLICE = 2**29
TARGET_BATCH = 2**27


def test_a_full_distribution_delays_a_target_query_by_at_most_one_slice(engine):
    full, target = held(), held("target_log_prob")
    log: list[str] = []

    async def main() -> None:
        full.runtime.hold()
        large = engine.submit(rows(full, *range(80), cost=FULL_SLICE // 8))  # ten slices
        for _ in range(5):
            await full.runtime.begun()
            log.append("full")
            one = engine.submit(pairs(target, [1], [0], [0]))
            one.add_done_callback(lambda _: log.append("target"))
            full.runtime.go()
            await one
        full.runtime.let_all_go()
        await large

    asyncio.run(main())
    assert log == ["full", "target"] * 5


def test_neither_lane_starves_when_both_are_full(engine):
    full, target = held(), held("target_log_prob")

    def fill(submit) -> None:
        for i in range(30):
            submit("full", rows(full, i, cost=FULL_SLICE))
            for _ in range(10):
                submit("target", pairs(target, [1], [0], [0], cost=TARGET_BATCH))

    order = turns(engine, fill)
    middle = order[: len(order) // 2]
    assert middle.count("full") >= 3
    # As much as a slice of full distributions at once, and then the targets' turn.
    longest = max(len(run) for run in "".join(name[0] for name in order[:-30]).split("t"))
    assert longest <= 8


def test_interactive_calls_go_before_others(engine):
    session = held("target_log_prob")

    def fill(submit) -> None:
        for low in (True, False):
            for _ in range(4):
                call = pairs(session, [1], [0], [0], cost=TARGET_BATCH, **urgent(low))
                submit("batch" if low else "interactive", call)

    assert turns(engine, fill)[:2].count("interactive") >= 1
    assert set(turns(engine, fill)[-3:]) == {"batch"}


def test_low_priority_never_starves(engine):
    session = held("target_log_prob")

    def fill(submit) -> None:
        submit("batch", pairs(session, [1], [0], [0], cost=TARGET_BATCH, **urgent(True)))
        submit("batch", pairs(session, [1], [0], [0], cost=TARGET_BATCH, **urgent(True)))
        for _ in range(40):
            submit("interactive", pairs(session, [1], [0], [0], cost=TARGET_BATCH))

    order = turns(engine, fill)
    assert order.index("batch") < 12
    assert "batch" in order[order.index("batch") + 1 : 24]


def test_room_in_a_batch_is_filled_with_low_priority(engine, metrics):
    session = held("target_log_prob")

    def fill(submit) -> None:
        submit("interactive", pairs(session, [1], [0], [0]))
        submit("batch", pairs(session, [2], [0], [0], **urgent(True)))

    turns(engine, fill)
    assert metrics.batches[-1] == ("target", 2, 2)


def test_full_distributions_leave_a_thread_to_the_others(start):
    engine = start(2)
    full, target = held(), held("target_log_prob")

    async def main() -> None:
        full.runtime.hold()
        slow = [engine.submit(rows(full, i, cost=FULL_SLICE)) for i in range(20)]
        await full.runtime.begun()
        await engine.submit(pairs(target, [1], [0], [0]))  # while the full one runs
        assert len(full.runtime.ran) == 1
        full.runtime.let_all_go()
        await asyncio.gather(*slow)

    asyncio.run(main())


def test_a_bundle_with_few_calls_does_not_wait_for_one_with_many(engine):
    often, seldom = held(), held()

    def fill(submit) -> None:
        for i in range(5):
            submit("often", rows(often, *range(i + 1), cost=FULL_SLICE))
        submit("seldom", rows(seldom, 1, cost=FULL_SLICE))

    assert turns(engine, fill).index("seldom") <= 3


def test_a_full_distribution_waits_while_responses_wait_for_encoding(start):
    """An early batch would be small, and each batch reads all weights."""
    engine = start()
    session, small = held(), held("target_log_prob")

    async def main() -> None:
        for _ in range(8):  # encoding takes a while, computing takes no time
            await engine.run_in_idle(lambda: time.sleep(0.02))
            await engine.submit(rows(session, 1))
        ran = len(session.runtime.ran)
        writing = [
            asyncio.create_task(engine.run_in_idle(lambda: time.sleep(0.02))) for _ in range(4)
        ]
        await asyncio.sleep(0)
        later = [engine.submit(rows(session, value)) for value in (1, 2, 3)]
        await engine.submit(pairs(small, [1], [0], [0]))  # not delayed
        assert not any(task.done() for task in writing[1:])
        assert len(session.runtime.ran) == ran
        await asyncio.gather(*later)
        assert len(session.runtime.ran) == ran + 1  # all in one batch
        assert all(task.done() for task in writing[:3])
        await asyncio.gather(*writing)

    asyncio.run(main())


def test_other_callbacks_run_between_the_steps_of_an_encoding(start):
    engine = start()
    seen = []

    async def main() -> None:
        steps = (seen.append(step) for step in range(3))
        writing = asyncio.create_task(engine.run_steps(steps))
        while not writing.done():
            seen.append("other")
            await asyncio.sleep(0)

    asyncio.run(main())
    between = seen[seen.index(0) : seen.index(2)]
    assert between == [0, "other", 1, "other"]


def test_a_call_holds_no_batch_that_has_ended(engine):
    """Else a long call would keep the inputs of all its slices, and of calls merged with it."""
    session = held()

    async def main() -> None:
        session.runtime.hold()
        large = engine.submit(rows(session, *range(24), cost=FULL_SLICE // 8))  # three slices
        await session.runtime.begun()
        (batch,) = (engine._executor._threads[0].batch,)
        item = batch.slices[0].item
        assert item.batches == {batch}
        session.runtime.go()
        await session.runtime.begun()
        assert item.batches == {engine._executor._threads[0].batch} != {batch}
        session.runtime.let_all_go()
        await large
        async with asyncio.timeout(PATIENCE):  # the thread may still have to complete the batch
            while item.batches:
                await asyncio.sleep(0)

    asyncio.run(main())


def test_a_rejection_names_at_most_a_minute(start):
    engine = start(limits=QueueLimits(2, 10**6, 10**9))
    session = held()

    async def main() -> int:
        futures = [await begun(engine, rows(session, 0.0))]
        futures += [engine.submit(rows(session, 1, cost=2**44)) for _ in range(2)]
        with pytest.raises(Overloaded) as caught:
            engine.submit(rows(session, 2))
        for future in futures:
            future.cancel()
        session.runtime.let_all_go()
        return caught.value.retry_after

    assert asyncio.run(main()) == 60


@pytest.mark.parametrize(("lane", "full"), [(Lane.TARGET, False), (Lane.FULL, True)])
def test_responses_that_wait_for_encoding_fill_every_lane_but_that_of_targets(start, lane, full):
    engine = start(limits=QueueLimits(2, 10**6, 10**9))
    assert not engine._scheduler.is_full(lane)
    engine._serializer.pending = 2
    assert engine._scheduler.is_full(lane) == full
