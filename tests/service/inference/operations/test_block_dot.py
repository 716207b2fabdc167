"""POST /v1/models/{name}/block_dot: its results, and the queries that it rejects."""

import subprocess
import sys

import msgspec
import numpy as np
import pytest

from hsoftmax.models import sparse_block_dot
from hsoftmax.service.inference.operations.block_dot import BlockDotAnswer
from tests.service.conftest import expect_error, serving

RNG = np.random.default_rng(0)
MODEL = sparse_block_dot.build(
    RNG.normal(size=(3, 4, 5, 2)).astype(np.float32), RNG.normal(size=(4, 2)).astype(np.float32)
)
H = RNG.normal(size=(6, 2, 5)).astype(np.float32)
INPUTS, OUTPUTS = RNG.integers(0, 3, (6, 2)), RNG.integers(0, 4, (6, 3))
ONE = {"h": H[:1].tolist(), "input_index": [[0, 1]], "output_index": [[3]]}


@pytest.fixture(scope="module")
def layer(tmp_path_factory, repository):  # which is made before any service runs
    folder = tmp_path_factory.mktemp("layers")
    np.savez(folder / "layer.npz", W=MODEL.weight, b=MODEL.bias)
    # Not in this process: where a service has run, sessions of the exporter can't be opened.
    command = [sys.executable, "-m", "hsoftmax", "export", str(folder / "layer.npz")]
    to = ["--from", "sparse-block-dot", "--to", str(folder / "repository" / "layer")]
    subprocess.run([*command, *to], check=True, capture_output=True)
    with serving(folder / "repository") as client:
        yield client


@pytest.fixture
def post(layer):
    return lambda query: layer.post("/v1/models/layer/block_dot", json=query)


def test_it_is_the_formula(post):
    query = {"h": H.tolist(), "input_index": INPUTS.tolist(), "output_index": OUTPUTS.tolist()}
    answer = post(query)
    assert answer.status_code == 200, answer.text
    got = msgspec.convert(answer.json(), BlockDotAnswer)
    wanted = sparse_block_dot.block_dot(MODEL, H, INPUTS, OUTPUTS)
    np.testing.assert_allclose(got.output, wanted, rtol=1e-5, atol=1e-5)
    assert (got.model, got.version) == ("layer", "1")


def test_a_single_row_may_leave_its_axis_out(post):
    one = post({"h": H[0].tolist(), "input_index": [0, 1], "output_index": [3]}).json()
    assert one["output"] == post(ONE).json()["output"]
    assert np.shape(one["output"]) == (1, 1, 2)


@pytest.mark.parametrize(
    ("change", "status", "code", "sentence"),
    [
        ({"h": [[[1.0]]]}, 422, "invalid_query", "h: expected [batch, iWin, 5], got [1, 1, 1]"),
        ({"h": []}, 422, "invalid_query", "h: expected"),
        ({"h": [[[1.0] * 5, [1.0]]]}, 422, "invalid_query", "h: expected lists of equal length"),
        ({"h": [[[1e300] * 5] * 2]}, 422, "invalid_query", "h: expected numbers within float32"),
        ({"h": "x"}, 422, "invalid_query", "h: expected a list, got a string"),
        ({"input_index": [[0]]}, 422, "invalid_query", "input_index: expected [1, 2], got [1, 1]"),
        ({"input_index": [[0, -1]]}, 422, "invalid_query", "input_index: expected 0 to 2, got -1"),
        ({"input_index": [[0, 3]]}, 422, "invalid_query", "input_index: expected 0 to 2, got 3"),
        ({"input_index": [[0, 2**63]]}, 422, "invalid_query", "input_index: expected"),
        ({"output_index": [[4]]}, 422, "invalid_query", "output_index: expected 0 to 3, got 4"),
        ({"output_index": [[1.5]]}, 422, "invalid_query", "output_index"),
        ({"output_index": [[1], [2]]}, 422, "invalid_query", "output_index: expected [1, oWin]"),
        ({"version": "9"}, 404, "unknown_version", "layer: expected version 1"),
        ({"inputs": []}, 422, "invalid_query", "unknown field 'inputs'"),
    ],
)
def test_an_invalid_query_is_refused(post, change, status, code, sentence):
    expect_error(post({**ONE, **change}), status, code, sentence)


def test_a_softmax_has_no_block_dot_and_a_layer_no_probabilities(client, layer):
    answer = client.post("/v1/models/plain/block_dot", json=ONE)
    expect_error(answer, 404, "unknown_task", "plain version 7 has no task block_dot")
    answer = layer.post("/v1/models/layer/probabilities", json={"inputs": [[1.0]]})
    expect_error(answer, 404, "unknown_task", "has no task log_probs: ask block_dot")


def test_more_lists_than_a_query_may_have_are_refused(layer):
    body = b'{"h":[' + b"[]," * 1_000_000 + b"[]]}"
    answer = layer.post("/v1/models/layer/block_dot", content=body)
    expect_error(answer, 413, "too_large", "lists")
