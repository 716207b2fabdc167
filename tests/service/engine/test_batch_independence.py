"""The results of a real bundle do not depend on the batch that a call is in."""

import asyncio

import numpy as np
import pytest

from hsoftmax.bundle import open_bundle
from hsoftmax.runtime.sessions import choose_device, open_sessions
from hsoftmax.service.engine import GraphCall
from tests.service.conftest import HIDDEN, TARGETS, TOLERANCE


@pytest.fixture(scope="module")
def sessions(repository):
    return open_sessions(open_bundle(repository / "words" / "2"), choose_device("cpu", 1))


def _call(session, rng, rows: int) -> GraphCall:
    hidden = (rng.normal(size=(rows, HIDDEN)) * rng.choice([0.1, 1, 30])).astype(np.float32)
    count = int(rng.integers(1, 6))
    more = {
        "target_log_prob": {
            "row": rng.integers(0, rows, count),
            "target": rng.integers(0, TARGETS, count),
        },
        "top_k": {"k": np.array([3]), "max_blocks": np.array([2])},
        "sample": {"noise": rng.random((rows, 4, 2), dtype=np.float32)},
    }
    feeds = {"hidden": hidden, **more.get(session.task, {})}
    # Some fit in a batch, some are sliced.
    return GraphCall(session, feeds, rows, cost=2**23 * rows)


@pytest.mark.parametrize(
    "task", ["target_log_prob", "log_probs", "top_k", "cluster_log_probs", "sample"]
)
def test_alone_in_a_batch_and_in_slices(engine, sessions, task, metrics):
    rng = np.random.default_rng(4)
    session = sessions[task]
    calls = [_call(session, rng, int(rows)) for rows in rng.integers(1, 40, size=60)]

    async def together() -> list:
        return await asyncio.gather(*(engine.submit(call) for call in calls))

    for call, outputs in zip(calls, asyncio.run(together()), strict=True):
        alone = session.run(call.feeds)
        for name, got, wanted in zip(session.output_names, outputs.arrays, alone, strict=True):
            if wanted.dtype == np.float32:
                np.testing.assert_allclose(got, wanted, rtol=TOLERANCE, atol=TOLERANCE)
            else:
                assert np.array_equal(got, wanted), name
    if task == "top_k":  # its budget takes many in a batch
        assert max(requests for _, _, requests in metrics.batches) > 1
