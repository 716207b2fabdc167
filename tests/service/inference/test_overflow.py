"""Finite inputs whose logits overflow float32 are an error of the request, and of it alone."""

import asyncio
import io

import numpy as np
import pyarrow as pa
import pytest

from hsoftmax.bundle import open_bundle
from hsoftmax.runtime.sessions import choose_device, open_sessions
from hsoftmax.service.api import operations
from hsoftmax.service.engine import Engine, GraphCall, QueueLimits
from hsoftmax.service.errors import InferenceFailed, LogitsOverflow
from hsoftmax.service.inference.operation import Plan
from hsoftmax.service.inference.overflow import expect_no_overflow
from hsoftmax.service.logging import json_log
from tests.data import SCHEMA_1
from tests.service.conftest import HIDDEN, expect_error, serving
from tests.service.engine.conftest import FakeMetrics

HUGE = np.full(HIDDEN, 3e38, dtype=np.float32)
HUGE[4:] = 0
SENTENCE = "expected numbers whose logits are within float32, got an overflow with numbers up to"
QUERIES = {
    "top_k": {"k": 3},
    "topk": {"k": 3, "max_blocks": 1},
    "probabilities": {},
    "clusters": {},
    "sample": {"num_samples": 2, "seed": 1},
}


@pytest.fixture
def inputs(hidden) -> np.ndarray:
    """Rows of which only row 1 overflows."""
    return np.concatenate([hidden[:1], HUGE[None], hidden[1:]])


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("operation", QUERIES)
def test_a_row_that_overflows_is_named(client, inputs, operation, log):
    query = {"inputs": inputs.tolist(), "log": log, **QUERIES[operation]}
    response = client.post(f"/v1/models/words/{operation}", json=query)
    expect_error(response, 422, "logits_overflow", f"inputs row 1: {SENTENCE} 3e+38: scale the row")


@pytest.mark.parametrize("clusters", [True, False])
def test_a_pair_that_overflows_is_named_by_its_row(client, inputs, clusters):
    targets = [[1], [2, 3], [], [4]]
    query = {"inputs": inputs.tolist(), "targets": targets, "clusters": clusters}
    response = client.post("/v1/models/words/probabilities", json=query)
    expect_error(response, 422, "logits_overflow", f"inputs row 1: {SENTENCE}")


def test_an_overflow_in_the_first_slice_is_refused(client, inputs, monkeypatch):
    monkeypatch.setattr(operations, "_MAX_UNSLICED_VALUES", 0)
    response = client.post("/v1/models/words/probabilities", json={"inputs": inputs.tolist()})
    expect_error(response, 422, "logits_overflow", "inputs row 1: ")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_matrix_body_that_overflows_is_refused(client, inputs, dtype):
    body = io.BytesIO()
    np.save(body, inputs.astype(dtype))
    headers = {"content-type": "application/x-npy"}
    response = client.post("/v1/models/words/top_k", content=body.getvalue(), headers=headers)
    expect_error(response, 422, "logits_overflow", f"inputs row 1: {SENTENCE}")


@pytest.mark.parametrize("value", [1e39, -1e300])
def test_float64_beyond_float32_is_refused_before_it_is_computed(client, inputs, value):
    matrix = inputs.astype(np.float64)
    matrix[1, 0] = value
    body, sink = io.BytesIO(), io.BytesIO()
    np.save(body, matrix)
    table = pa.table({"inputs": pa.array(matrix.tolist(), pa.list_(pa.float64()))})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    for media_type, content in (
        ("application/x-npy", body.getvalue()),
        ("application/vnd.apache.arrow.stream", sink.getvalue()),
    ):
        url, headers = "/v1/models/words/top_k", {"content-type": media_type}
        response = client.post(url, content=content, headers=headers)
        sentence = f"inputs row 1, position 0: expected a finite number within float32, got {value}"
        expect_error(response, 422, "invalid_query", sentence)


def test_large_numbers_that_do_not_overflow_are_answered(ask, inputs):
    inputs[1] /= 1e8
    results = ask("top_k", inputs=inputs.tolist(), k=1)["results"]
    assert results[1]["probabilities"] == [1]


def test_other_families_refuse_an_overflow():
    layer = {"h": [[[1.0, 1.0]], [[3e38, 3e38]]], "input_index": [[0], [0]],
             "output_index": [[1], [1]]}  # fmt: skip
    tree = {"inputs": [[-3e38, 3e38, -3e38, 3e38]]}
    with serving(SCHEMA_1 / "repository") as client:
        response = client.post("/v1/models/block_dot/block_dot", json=layer)
        expect_error(response, 422, "logits_overflow", f"h row 1: {SENTENCE}")
        for query in (tree, {**tree, "targets": [list(range(9))]}):
            response = client.post("/v1/models/huffman/probabilities", json=query)
            expect_error(response, 422, "logits_overflow", f"inputs row 0: {SENTENCE}")


def test_other_requests_of_the_batch_are_answered(repository, hidden):
    """The calls share one run of the graph; each is checked by its own rows."""
    session = log_probs_session(repository)
    metrics = FakeMetrics()
    engine = Engine(
        1, json_log("error"), metrics, limits=QueueLimits(1000, 10**6, 10**9), timeout=60
    )
    blocker = np.tile(hidden, (2000, 1))
    states = [blocker, hidden[:1], HUGE[None], hidden[1:2], hidden[2:3]]
    plans = [plan_of(session, rows) for rows in states]

    async def together() -> list:
        calls = [GraphCall(session, plan.feeds, plan.rows, cost=2**22) for plan in plans]
        return await asyncio.gather(*(engine.submit(call) for call in calls))

    try:
        results = asyncio.run(together())
    finally:
        engine.close()
    assert max(requests for _, _, requests in metrics.batches) >= 4
    for i in (0, 1, 3, 4):
        expect_no_overflow(plans[i], results[i].arrays)
        alone = session.run({"hidden": states[i]})[0]
        np.testing.assert_allclose(results[i].arrays[0], alone, rtol=1e-5)
    with pytest.raises(LogitsOverflow, match="inputs row 0: "):
        expect_no_overflow(plans[2], results[2].arrays)


def test_a_wrong_result_of_ordinary_numbers_is_our_fault(repository, hidden):
    session = log_probs_session(repository)
    outputs = session.run({"hidden": hidden})
    outputs[0][1, 2] = np.nan
    with pytest.raises(InferenceFailed):
        expect_no_overflow(plan_of(session, hidden), outputs)


def test_a_cluster_without_targets_is_no_overflow(repository, hidden):
    bundle = open_bundle(repository / "words" / "2")
    session = open_sessions(bundle, choose_device("cpu", 1))["cluster_log_probs"]
    outputs = session.run({"hidden": hidden})
    outputs[0][:, -1] = -np.inf
    expect_no_overflow(plan_of(session, hidden), outputs)


def plan_of(session, rows: np.ndarray) -> Plan:
    return Plan(session, {"hidden": rows}, len(rows), 1, rows.size, finish=lambda outputs: {})


def log_probs_session(repository):
    bundle = open_bundle(repository / "words" / "2")
    return open_sessions(bundle, choose_device("cpu", 1))["log_probs"]
