"""Graph calls of a job: their priority, their cost, and that they share no batch."""

import asyncio

import numpy as np
import pytest

from hsoftmax.runtime.devices import ON_CPU
from hsoftmax.scoring import GraphRequest, Task
from hsoftmax.service.engine import Priority
from hsoftmax.service.engine.batching import batch_key
from hsoftmax.service.jobs.blocking_graph_runner import BlockingGraphRunner, build_job_call
from hsoftmax.service.jobs.errors import Interrupted
from hsoftmax.service.repository.loaded_bundle import load_bundle
from tests.service.conftest import HIDDEN


@pytest.fixture
def loaded(repository):
    return load_bundle("words", 2, repository / "words" / "2", device=ON_CPU, check_hashes=False)


def make_request(graph: str, rows: int = 3) -> GraphRequest:
    return GraphRequest(
        graph=graph,
        task=Task("top_k", k=2, num_samples=4),
        positions=np.arange(rows),
        hidden=np.zeros((rows, HIDDEN), np.float32),
        row=np.arange(rows),
        target=np.arange(rows),
        seed=1,
    )


@pytest.mark.parametrize("graph", ["target_log_prob", "log_probs", "top_k", "sample"])
def test_calls_have_batch_priority_and_are_never_batched(loaded, graph):
    one, other = (build_job_call(make_request(graph), loaded) for _ in range(2))
    assert one.priority is Priority.BATCH
    assert one.cost > 0
    assert one.values >= 3
    assert batch_key(one) != batch_key(other)
    outputs = loaded.session(graph).run(one.feeds)
    assert all(len(output) == 3 for output in outputs)


def test_a_stopped_job_cancels_its_running_call(loaded):
    """The engine never completes the call, and the job is stopped while it waits."""
    checks = []

    class Engine:
        def submit(self, call):
            self.future = asyncio.get_running_loop().create_future()
            return self.future

    def check() -> None:
        checks.append(None)
        if len(checks) > 2:
            raise Interrupted("cancelled")

    async def main() -> None:
        engine = Engine()
        run = BlockingGraphRunner(loaded, engine, asyncio.get_running_loop(), check)
        with pytest.raises(Interrupted):
            await asyncio.to_thread(run, make_request("top_k"))
        await asyncio.sleep(0.01)
        assert engine.future.cancelled()

    asyncio.run(asyncio.wait_for(main(), 10))


def test_the_cost_grows_with_the_rows(loaded):
    for graph in ("target_log_prob", "log_probs", "top_k", "sample"):
        few, many = (build_job_call(make_request(graph, rows), loaded) for rows in (2, 20))
        assert many.cost == 10 * few.cost
        assert (many.rows, many.values) == (20, 10 * few.values)
