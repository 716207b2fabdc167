"""Hidden rows in the form in which a level's weights multiply them.

    HiddenRows        [m, 1, H]  left operand of transposed float blocks, [n, 1, H, K] or [1, H, K]
    HiddenColumns     [H, m]     right operand of a float block [K, H]
    QuantisedHidden   [m, H]     left operand of int8 blocks, transposed or one [K, H]

If each pair multiplies a block of its own, [m, H, K], the quantised rows are [m, 1, H].

Hidden rows are quantised to 7 bits: 64 + round(hidden / step), step = max |row| / 63. The sum of
two products of a 7-bit and an 8-bit number fits in 16 bits. Processors without VNNI add such
products in 16 bits and clip the sum.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from .ops import between, ints, length, real, transpose

QUANTISED_MAX = 63  # quantised values are -63..63, plus the zero point
ZERO_POINT = QUANTISED_MAX + 1  # represents 0, because the stored values are unsigned


class HiddenStates(Protocol):
    """m hidden rows in the form that a level's weights need."""

    def count(self) -> Var:
        """Return m as [1].

        Reading it outside of a loop's body keeps the rows out of the body: see
        `distinct_blocks._map_elements`.
        """
        ...

    def between(self, start: Var, end: Var) -> "HiddenStates":
        """Return the rows start:end; both are [1]."""
        ...


@dataclass(frozen=True)
class HiddenRows:
    """[m, 1, H] float32; `matmul` explains the axis of size one."""

    values: Var

    def count(self) -> Var:
        return length(self.values)

    def between(self, start: Var, end: Var) -> "HiddenRows":
        return HiddenRows(between(self.values, start, end))


@dataclass(frozen=True)
class HiddenColumns:
    """[H, m] float32."""

    values: Var

    def count(self) -> Var:
        return length(self.values, axis=1)

    def between(self, start: Var, end: Var) -> "HiddenColumns":
        return HiddenColumns(between(self.values, start, end, axis=1))


@dataclass(frozen=True)
class QuantisedHidden:
    """Values [m, ..., H] uint8 and step [m, ..., 1] float32.

    Row i represents step[i] * (values[i] - 64).
    """

    values: Var
    step: Var

    def count(self) -> Var:
        return op.min([length(self.values), length(self.step)])

    def between(self, start: Var, end: Var) -> "QuantisedHidden":
        return QuantisedHidden(between(self.values, start, end), between(self.step, start, end))


def to_columns(hidden: Var, hidden_size: int) -> Var:
    """hidden [m, H] -> [H, m].

    H is an argument because a slice of the rows has no static width. The Reshape prevents ONNX
    Runtime from fusing the Transpose into the product that follows, which would lose its
    matrix-vector kernel, three times as fast for one row.
    """
    return op.reshape(transpose(hidden), ints(hidden_size, -1))


def quantise(hidden: Var) -> QuantisedHidden:
    """Quantise hidden [m, ..., H]; a row of zeros gets step 0 and arbitrary values."""
    peak = op.reduce_max(op.abs(hidden), ints(-1), keepdims=1)
    step = op.div(peak, real(QUANTISED_MAX))
    values = op.add(op.div(hidden, step), real(ZERO_POINT + 0.5))  # Cast rounds down
    return QuantisedHidden(op.cast(values, to=np.uint8), step)
