"""The inputs and outputs that every top_k kernel has."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hsoftmax.models.arrays import Array

from .library import expect_integers


@dataclass(frozen=True)
class TopKArguments:
    """Checked parameters, and arrays for the outputs.

    Attributes:
        max_blocks: most blocks or nodes that a row opens; 0 is no limit
        outputs: log_prob and target [batch, k], opened blocks and exact [batch]
    """

    k: int
    max_blocks: int
    outputs: list[Array]


def expect_top_k(feeds: Mapping[str, Array], num_targets: int, batch: int) -> TopKArguments:
    """Read k [1] and max_blocks [1]. Raises NativeError for another type or shape.

    The library refuses values out of range; here they only may not make the outputs huge.
    """
    k = int(expect_integers("k", feeds["k"], 1)[0])
    max_blocks = int(expect_integers("max_blocks", feeds["max_blocks"], 1)[0])
    shape = (batch, min(max(k, 0), num_targets))
    outputs: list[Array] = [
        np.empty(shape, dtype=np.float32),
        np.empty(shape, dtype=np.int64),
        np.empty(batch, dtype=np.int64),
        np.empty(batch, dtype=np.bool_),
    ]
    return TopKArguments(k, max_blocks, outputs)
