"""The conversions of few values in Python and of many in NumPy give the same numbers."""

import numpy as np
import pytest

from hsoftmax.service.errors import InferenceFailed
from hsoftmax.service.inference.output_values import _MAX_SMALL_VALUES, to_values


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("low", [0.0, -5.0, -80.0, -200.0, -800.0])
def test_few_values_are_converted_like_many(low, log):
    values = np.linspace(low, 1e-7, _MAX_SMALL_VALUES, dtype=np.float32)
    few = to_values(values, log)
    many = to_values(np.concatenate([values, values]), log)[:_MAX_SMALL_VALUES]
    assert few.dtype == many.dtype
    np.testing.assert_allclose(few, many, rtol=3e-7 if few.dtype == np.float32 else 1e-15)


@pytest.mark.parametrize("size", [1, _MAX_SMALL_VALUES + 1])
def test_minus_infinity_is_a_number_and_nan_is_not(size):
    values = np.full(size, -np.inf, dtype=np.float32)
    assert to_values(values, False).tolist() == [0.0] * size
    values[-1] = np.nan
    with pytest.raises(InferenceFailed):
        to_values(values, True)


def test_no_values_are_none():
    assert to_values(np.empty(0, dtype=np.float32), False).tolist() == []
