"""The conversions of few values in Python and of many in NumPy give the same numbers."""

import json
import math

import numpy as np
import pytest

from hsoftmax.service.codecs.json import encode_array
from hsoftmax.service.inference.output_values import (
    _MAX_SMALL_VALUES,
    to_target_values,
    to_values,
)


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("low", [0.0, -5.0, -80.0, -200.0, -800.0])
def test_few_values_are_converted_like_many(low, log):
    values = np.linspace(low, 1e-7, _MAX_SMALL_VALUES, dtype=np.float32)
    few = to_values(values, log, 0.0)
    many = to_values(np.concatenate([values, values]), log, 0.0)[:_MAX_SMALL_VALUES]
    assert few.dtype == many.dtype
    np.testing.assert_allclose(few, many, rtol=3e-7 if few.dtype == np.float32 else 1e-15)


@pytest.mark.parametrize("size", [1, _MAX_SMALL_VALUES + 1])
def test_minus_infinity_is_the_probability_zero(size):
    values = np.full(size, -np.inf, dtype=np.float32)
    assert to_values(values, False, 0.0).tolist() == [0.0] * size


@pytest.mark.parametrize("size", [1, _MAX_SMALL_VALUES + 1])
def test_only_scores_exceed_one(size):
    values = np.full(size, 3e-5, dtype=np.float32)
    assert to_values(values, True, 0.0).tolist() == [0.0] * size
    assert to_values(values, False, 0.0).tolist() == [1.0] * size
    assert to_values(values, False, math.inf).tolist() == pytest.approx([math.exp(3e-5)] * size)
    assert to_values(values, True, math.inf).tolist() == values.tolist()


def test_no_values_are_none():
    assert to_values(np.empty(0, dtype=np.float32), False, 0.0).tolist() == []


@pytest.mark.parametrize("log", [True, False])
def test_a_target_has_the_same_digits_alone_and_beside_others(log):
    """Beside probabilities that only float64 holds, too."""
    values = -np.random.default_rng(2).exponential(40, 5_000).astype(np.float32)
    assert (values < -90).any()
    alone = [to_target_values(values[i : i + 1], log, 0.0) for i in range(len(values))]
    together = to_target_values(values.reshape(50, 100), log, 0.0)
    as_read = [json.loads(encode_array(one))[0] for one in alone]
    assert json.loads(encode_array(together.ravel())) == as_read


def test_a_probability_of_a_target_is_that_of_float64():
    values = np.array([-0.5, -3.0, -200.0, -800.0, -np.inf, 1e-7], dtype=np.float32)
    got = to_target_values(values, False, 0.0)
    np.testing.assert_allclose(got, np.exp(np.minimum(values, 0).astype(float)), rtol=6e-8)
    assert to_target_values(values, False, math.inf)[-1] > 1
    assert to_target_values(values[:0], False, 0.0).tolist() == []
