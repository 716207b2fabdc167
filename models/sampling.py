"""The uniform noise that a `sample` graph turns into draws.

It is made on the host, so that a seed determines every draw, in the service and in batch scoring.
"""

import numpy as np

from .arrays import Float32

_NUMBERS_A_STEP = 8  # that Philox makes of one value of its counter, in float32
_SMALLEST_NOISE = np.float32(2**-25)  # never 0: a graph may take its logarithm


def noise(seed: int, rows: int, samples: int, per_sample: int, skip: int = 0) -> Float32:
    """Uniform in (0, 1), [rows, samples, per_sample]; without the seed's first `skip` numbers."""
    bits = np.random.Philox(seed)
    bits.advance(skip // _NUMBERS_A_STEP)
    before = skip % _NUMBERS_A_STEP
    count = rows * samples * per_sample
    made = np.random.Generator(bits).random(before + count, dtype=np.float32)[before:]
    return np.maximum(made, _SMALLEST_NOISE).reshape(rows, samples, per_sample)
