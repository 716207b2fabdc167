"""The inputs and the output that every target_log_prob kernel has."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hsoftmax.models.arrays import Array

from .library import expect_hidden, expect_integers


@dataclass(frozen=True)
class PathArguments:
    """Checked inputs, and an array for the output.

    Attributes:
        hidden: [batch, hidden_size]
        row, target: [pairs]
        log_prob: [pairs], not set yet
    """

    hidden: Array
    row: Array
    target: Array
    log_prob: Array


def expect_pairs(feeds: Mapping[str, Array], hidden_size: int) -> PathArguments:
    """Read hidden, row and target. Raises NativeError for another type or shape."""
    hidden = expect_hidden(feeds["hidden"], hidden_size)
    row = expect_integers("row", feeds["row"])
    target = expect_integers("target", feeds["target"], len(row))
    return PathArguments(hidden, row, target, np.empty(len(row), dtype=np.float32))
