"""Tests of the block-sparse dot product and of its checks."""

import numpy as np
import pytest

from hsoftmax.models import QueryError, WeightsError, from_tensors, sparse_block_dot, to_tensors
from hsoftmax.models.sparse_block_dot import block_dot, build

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(3, 4, 5, 2)).astype(np.float32)
BIAS = RNG.normal(size=(4, 2)).astype(np.float32)
MODEL = build(WEIGHT, BIAS)


def naive(h, input_index, output_index):
    weight = WEIGHT.astype(np.float64)[input_index[:, :, None], output_index[:, None, :]]
    return BIAS[output_index] + np.einsum("bis,bijsd->bjd", h.astype(np.float64), weight)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_block_dot_equals_the_formula_for_any_integer_type(dtype):
    h = RNG.normal(size=(6, 2, 5)).astype(np.float32)
    input_index = RNG.integers(0, 3, (6, 2)).astype(dtype)
    output_index = RNG.integers(0, 4, (6, 3)).astype(dtype)
    np.testing.assert_allclose(
        block_dot(MODEL, h, input_index, output_index), naive(h, input_index, output_index)
    )


def test_an_input_block_named_twice_counts_twice_but_the_bias_once():
    h = np.ones((1, 2, 5), dtype=np.float32)
    actual = block_dot(MODEL, h, np.array([[1, 1]]), np.array([[2]]))
    np.testing.assert_allclose(actual[0, 0], BIAS[2] + 2 * WEIGHT[1, 2].sum(axis=0), rtol=1e-6)


def test_an_output_block_named_twice_is_computed_twice():
    actual = block_dot(MODEL, np.ones((1, 1, 5)), np.array([[0]]), np.array([[3, 3, 1]]))
    assert actual.shape == (1, 3, 2)
    assert actual[0, 0].tolist() == actual[0, 1].tolist() != actual[0, 2].tolist()


def test_two_axes_are_a_batch_of_one():
    h = RNG.normal(size=(2, 5))
    flat = block_dot(MODEL, h, np.array([0, 2]), np.array([1]))
    assert flat.shape == (1, 1, 2)
    np.testing.assert_array_equal(
        flat, block_dot(MODEL, h[None], np.array([[0, 2]]), [[1]] @ np.ones((1, 1), int))
    )


def test_a_model_is_built_from_its_tensors_without_copies():
    again = from_tensors("SparseBlockDot", to_tensors(MODEL), sparse_block_dot.attributes(MODEL))
    assert again.weight is MODEL.weight


@pytest.mark.parametrize(
    ("h", "input_index", "output_index", "message"),
    [
        ((1, 2, 4), [[0, 0]], [[0]], r"h: expected \[batch, iWin, 5\], got \[1, 2, 4\]"),
        ((1, 2, 5), [[0]], [[0]], r"input_index: expected \[1, 2\], got \[1, 1\]"),
        ((1, 2, 5), [[0, 0]], [[0], [0]], r"output_index: expected \[1, oWin\], got \[2, 1\]"),
        ((1, 2, 5), [[0, -1]], [[0]], r"input_index: expected 0 to 2, got -1"),
        ((1, 2, 5), [[0, 3]], [[0]], r"input_index: expected 0 to 2, got 3"),
        ((1, 2, 5), [[0, 0]], [[4]], r"output_index: expected 0 to 3, got 4"),
        ((1, 2, 5), [[0, 0.0]], [[0]], r"input_index: expected integers, got dtype float64"),
    ],
)
def test_invalid_queries_are_refused(h, input_index, output_index, message):
    with pytest.raises(QueryError, match=message):
        block_dot(MODEL, np.zeros(h), np.array(input_index), np.array(output_index))


@pytest.mark.parametrize(
    ("weight", "bias", "message"),
    [
        (np.zeros((4, 5, 2)), BIAS, r"W: expected \[iBlocks, oBlocks, iSize, oSize\], got"),
        (WEIGHT, np.zeros((3, 2)), r"b: expected \[4, 2\], got \[3, 2\]"),
        (np.zeros((0, 4, 5, 2)), BIAS, r"W: expected no empty axis, got \[0, 4, 5, 2\]"),
        (np.full((3, 4, 5, 2), np.inf), BIAS, r"W: expected finite float32 values, got inf"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(weight, bias, message):
    with pytest.raises(WeightsError, match=message):
        build(weight, bias)
