"""Tests of the block-sparse layer's graph for CUDA, on the CPU, against the reference."""

import numpy as np
import pytest

from hsoftmax.models import sparse_block_dot

from .task_runner import CudaTaskRunner


def layer(*shape: int) -> sparse_block_dot.SparseBlockDot:
    rng = np.random.default_rng(0)
    return sparse_block_dot.build(rng.normal(size=shape), rng.normal(size=(shape[1], shape[3])))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 4, 5, 2), (2, 30, 7, 1), (8, 3, 16, 32)])
@pytest.mark.parametrize(
    "windows", [(1, 1, 1), (4, 3, 2), (70, 2, 5), (2, 9, 5), (0, 2, 2), (2, 0, 2), (2, 2, 0)]
)
@pytest.mark.parametrize(
    "max_bytes",
    [pytest.param(1, marks=pytest.mark.slow), 4_000, pytest.param(1 << 30, marks=pytest.mark.slow)],
)
def test_the_graph_equals_the_reference(tmp_path, shape, windows, max_bytes):
    model = layer(*shape)
    rng = np.random.default_rng(1)
    batch, inputs, outputs = windows
    feeds = {
        "h": rng.normal(size=(batch, inputs, shape[2])).astype(np.float32),
        "input_index": rng.integers(0, shape[0], (batch, inputs)),
        "output_index": rng.integers(0, shape[1], (batch, outputs)),
    }
    (actual,) = CudaTaskRunner(model, tmp_path, max_bytes)("block_dot", **feeds)
    expected = sparse_block_dot.block_dot(model, **feeds)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
