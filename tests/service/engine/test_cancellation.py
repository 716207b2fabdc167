"""A client that disconnects cancels its own call, and no other call."""

import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest

from hsoftmax.exporter.storage.tensors import stored_tensors
from hsoftmax.runtime.native import NativeError, load_library
from tests.exporter.graphs.test_hierarchical_softmax import softmax
from tests.runtime.kernels import LevelsTargetLogProb

from .conftest import begun, held, pairs, rows


async def batched(engine, session, *values) -> list[asyncio.Future]:
    """Calls that form one batch, which runs and is held."""
    first = await begun(engine, rows(session, 0.0))
    futures = [engine.submit(rows(session, v)) for v in values]
    session.runtime.go()
    await first
    await session.runtime.begun()
    return futures


def test_a_cancelled_member_of_a_batch_leaves_the_others_alone(engine, metrics):
    session = held()

    async def main() -> list:
        futures = await batched(engine, session, 1, 2, 3, 4)
        futures[0].cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        session.runtime.let_all_go()
        return await asyncio.gather(*futures[1:])

    assert [one.arrays[0].tolist() for one in asyncio.run(main())] == [[2], [3], [4]]
    assert not session.runtime.terminated.is_set()
    assert metrics.why == {"cancelled": 1}


def test_a_call_cancelled_in_the_queue_is_never_run_and_frees_its_room(engine):
    session = held()

    async def main() -> None:
        first = await begun(engine, rows(session, 0.0))
        futures = [engine.submit(rows(session, v)) for v in (1, 2, 3)]
        futures[1].cancel()
        await asyncio.sleep(0)
        assert engine.waiting()["full"] == 2
        session.runtime.let_all_go()
        await asyncio.gather(first, futures[0], futures[2])

    asyncio.run(main())
    assert session.runtime.ran[1]["hidden"][:, 0].tolist() == [1, 3]


def test_a_run_without_a_waiting_caller_is_stopped(engine, metrics):
    session = held()

    async def main() -> None:
        futures = await batched(engine, session, 1, 2)
        futures[0].cancel()
        futures[1].cancel()
        assert await asyncio.to_thread(session.runtime.terminated.wait, 10)
        session.runtime.let_all_go()
        await engine.submit(rows(session, 3))  # the engine goes on

    asyncio.run(main())
    assert metrics.why == {"cancelled": 2}
    assert len(session.runtime.ran) == 3  # a batch that was stopped is not tried again


class Recorded:
    """A native kernel over one block of a million targets; records that a run began or failed."""

    def __init__(self):
        model = softmax([10**6], hidden=2)
        self.kernel = LevelsTargetLogProb(
            load_library(), stored_tensors(model, "fp32"), num_targets=model.num_targets
        )
        self.begun, self.failed = threading.Event(), threading.Event()
        self.error = ""

    def __call__(self, feeds, stop=None):
        self.begun.set()
        try:
            return self.kernel(feeds, stop)
        except NativeError as error:
            self.error = str(error)
            self.failed.set()
            raise


def test_a_native_run_without_a_waiting_caller_is_stopped(engine, metrics):
    kernel = Recorded()
    session = replace(held("target_log_prob"), kernel=kernel)
    many = np.arange(10_000)  # rows; the run would take seconds

    async def main() -> None:
        future = engine.submit(pairs(session, many, many, many, cost=1))
        assert await asyncio.to_thread(kernel.begun.wait, 10)
        future.cancel()
        assert await asyncio.to_thread(kernel.failed.wait, 10)

    asyncio.run(main())
    assert kernel.error == "the run was stopped"
    assert metrics.why == {"cancelled": 1}


def test_the_other_slices_of_a_cancelled_request_are_not_run(engine):
    session = held()

    async def main() -> None:
        large = await begun(engine, rows(session, *range(100), cost=2**28))
        large.cancel()
        assert await asyncio.to_thread(session.runtime.terminated.wait, 10)
        session.runtime.let_all_go()
        await engine.submit(rows(session, 7))

    asyncio.run(main())
    assert len(session.runtime.ran) == 2


def test_many_cancellations_leave_nothing_behind(start, metrics):
    engine = start(2)
    session = held()

    async def main() -> None:
        session.runtime.hold()
        futures = [engine.submit(rows(session, v)) for v in range(500)]
        await session.runtime.begun()
        for future in futures[::2]:
            future.cancel()
        session.runtime.let_all_go()
        kept = await asyncio.gather(*futures[1::2])
        assert [one.arrays[0].tolist() for one in kept] == [[v] for v in range(1, 500, 2)]

    asyncio.run(main())
    assert sum(engine.waiting().values()) == 0
    assert metrics.why["cancelled"] == 250


def test_a_cancelled_task_cancels_its_call(engine, metrics):
    session = held()

    async def main() -> None:
        session.runtime.hold()
        task = asyncio.create_task(engine.run(rows(session, 1)))
        await session.runtime.begun()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(session.runtime.terminated.wait, 10)

    asyncio.run(main())
    assert metrics.why == {"cancelled": 1}
