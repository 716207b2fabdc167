"""What a job asks of the engine, and that its answers depend on nobody else."""

import asyncio

import numpy as np
import pytest

from hsoftmax.runtime.devices import ON_CPU
from hsoftmax.scoring import GraphRequest, Task
from hsoftmax.service.engine import Priority
from hsoftmax.service.engine.batching import batch_key
from hsoftmax.service.jobs.blocking_graph_runner import EngineRun, call_of
from hsoftmax.service.jobs.errors import Interrupted
from hsoftmax.service.repository.loaded_bundle import load_bundle
from tests.service.conftest import HIDDEN


@pytest.fixture
def served(repository):
    return load_bundle("words", 2, repository / "words" / "2", device=ON_CPU, check_hashes=False)


def asked(graph: str, rows: int = 3) -> GraphRequest:
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
def test_calls_go_after_others_and_by_themselves(served, graph):
    one, other = (call_of(asked(graph), served) for _ in range(2))
    assert one.priority is Priority.BATCH
    assert one.cost > 0
    assert one.values >= 3
    assert batch_key(one) != batch_key(other)
    outputs = served.session(graph).run(one.feeds)
    assert all(len(output) == 3 for output in outputs)


def test_who_stops_gives_up_what_runs(served):
    """Its engine never answers; the job is told to stop while it waits."""
    looks = []

    class Engine:
        def submit(self, call):
            self.future = asyncio.get_running_loop().create_future()
            return self.future

    def look_up() -> None:
        looks.append(None)
        if len(looks) > 2:
            raise Interrupted("cancelled")

    async def main() -> None:
        engine = Engine()
        run = EngineRun(served, engine, asyncio.get_running_loop(), look_up)
        with pytest.raises(Interrupted):
            await asyncio.to_thread(run, asked("top_k"))
        await asyncio.sleep(0.01)
        assert engine.future.cancelled()

    asyncio.run(asyncio.wait_for(main(), 10))


def test_more_work_is_said_to_be_more(served):
    for graph in ("target_log_prob", "log_probs", "top_k", "sample"):
        few, many = (call_of(asked(graph, rows), served) for rows in (2, 20))
        assert many.cost == 10 * few.cost
        assert (many.rows, many.values) == (20, 10 * few.values)
