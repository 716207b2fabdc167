"""Hidden rows in the form in which a level multiplies with them.

    rows [m, 1, H]     the left operand of transposed blocks of floats, [n, 1, H, K] or [1, H, K]
    digits [m, H]      the left operand of int8 blocks: of such, or of one [K, H] that is transposed
    columns [H, m]     the right operand of a block of floats [K, H]

A pair that multiplies with a block of its own, [m, H, K], has digits [m, 1, H].

Hidden rows are rounded to 7 bits: 64 + round(hidden / step), step = max |row| / 63. Two products of
a 7-bit and an 8-bit number fit in 16 bits, where processors before VNNI add them and clip the sum.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from .ops import between, ints, length, real, transpose

STEPS = 63
ZERO = STEPS + 1  # the digit that stands for 0: digits are unsigned


class States(Protocol):
    """m hidden rows, as the weights of a level take them."""

    def count(self) -> Var:
        """m, as [1]. Reading it outside of a loop's body keeps the rows out of it, see visits."""
        ...

    def between(self, start: Var, end: Var) -> "States":
        """Some of the rows; start and end are [1]."""
        ...


@dataclass(frozen=True)
class Rows:
    """[m, 1, H] float32: see products for the axis between."""

    values: Var

    def count(self) -> Var:
        return length(self.values)

    def between(self, start: Var, end: Var) -> "Rows":
        return Rows(between(self.values, start, end))


@dataclass(frozen=True)
class Columns:
    """[H, m] float32."""

    values: Var

    def count(self) -> Var:
        return length(self.values, axis=1)

    def between(self, start: Var, end: Var) -> "Columns":
        return Columns(between(self.values, start, end, axis=1))


@dataclass(frozen=True)
class Digits:
    """[m, ..., H] uint8, and [m, ..., 1] float32: row i stands for step[i] * (digits[i] - 64)."""

    values: Var
    step: Var

    def count(self) -> Var:
        return op.min([length(self.values), length(self.step)])

    def between(self, start: Var, end: Var) -> "Digits":
        return Digits(between(self.values, start, end), between(self.step, start, end))


def columns_of(hidden: Var, hidden_size: int) -> Var:
    """hidden [m, H] -> [H, m]; H is told, for a slice of the rows does not know it.

    The Reshape is there to be in the way: ONNX Runtime would fuse a Transpose into the product
    after it, and lose its matrix-vector kernel, three times as fast for one row.
    """
    return op.reshape(transpose(hidden), ints(hidden_size, -1))


def digits_of(hidden: Var) -> Digits:
    """hidden [m, ..., H], rounded. A row of zeros has step 0, and any digits."""
    peak = op.reduce_max(op.abs(hidden), ints(-1), keepdims=1)
    step = op.div(peak, real(STEPS))
    digits = op.add(op.div(hidden, step), real(ZERO + 0.5))  # Cast rounds down
    return Digits(op.cast(digits, to=np.uint8), step)
