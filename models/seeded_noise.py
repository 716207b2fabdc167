"""Uniform random numbers, the `noise` input from which a `sample` graph draws targets.

The service and batch scoring make them on the host, so that a seed determines every draw.
"""

import numpy as np

from .arrays import Float32

_NUMBERS_PER_COUNTER = 8  # float32 numbers that Philox makes per counter value
_MIN_NOISE = np.float32(2**-25)  # not 0, because a graph may take its logarithm


def noise(seed: int, rows: int, samples: int, per_sample: int, skip: int = 0) -> Float32:
    """Return uniform numbers in (0, 1), [rows, samples, per_sample].

    The seed's first `skip` numbers are left out.
    """
    generator = np.random.Philox(seed)
    generator.advance(skip // _NUMBERS_PER_COUNTER)
    offset = skip % _NUMBERS_PER_COUNTER
    count = rows * samples * per_sample
    numbers = np.random.Generator(generator).random(offset + count, dtype=np.float32)[offset:]
    return np.maximum(numbers, _MIN_NOISE).reshape(rows, samples, per_sample)
