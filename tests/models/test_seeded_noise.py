"""The noise of samples: Philox of the seed, the same in any division of its rows."""

import numpy as np
import pytest

from hsoftmax.models.seeded_noise import noise


def test_it_begins_with_the_first_number_of_the_seed():
    expected = np.random.Generator(np.random.Philox(7)).random(24, dtype=np.float32)
    np.testing.assert_array_equal(noise(7, 3, 4, 2), expected.reshape(3, 4, 2))


@pytest.mark.parametrize("skip", [1, 6, 7, 8, 9, 16, 30])
def test_what_is_skipped_is_left_out(skip):
    whole = noise(7, 1, 64, 1).ravel()
    np.testing.assert_array_equal(noise(7, 1, 20, 1, skip).ravel(), whole[skip : skip + 20])


def test_no_number_is_zero():
    assert noise(0, 1, 10**6, 1).min() > 0
