"""The input matrix, dense or product-quantised, and the sum of some of its rows.

Rows are added one after another in float32, in the order of their numbers in the list: the same
order, and so the same rounding, as fastText's and gensim's C code.
"""

from dataclasses import dataclass

import numpy as np

from hsoftmax.models import WeightsError
from hsoftmax.models.arrays import Array, Float32, Int64, expect_ndim, expect_shape

NUM_CENTROIDS = 256
_VALUES_AT_ONCE = 2**20  # numbers of rows that are gathered for one step of a sum


@dataclass(frozen=True)
class DenseMatrix:
    """float32 [rows, hidden_size]."""

    weight: Float32

    def __post_init__(self) -> None:
        expect_ndim("input.weight", self.weight, "rows", "hidden_size")

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.weight.shape
        return rows, columns

    def rows(self, numbers: Int64) -> Float32:
        """Return these rows."""
        return self.weight[numbers]


@dataclass(frozen=True)
class QuantizedMatrix:
    """Rows in parts, of which each is one of 256 centroids; with norms, times the row's norm.

    Attributes:
        columns: the number of columns; the last part may be shorter than the others
        codes: uint8 [rows, parts]
        centroids: float32 [parts, 256, columns of a part], with zeros after a shorter last part
        norm_codes, norms: uint8 [rows] and float32 [256], or None
    """

    columns: int
    codes: Array
    centroids: Float32
    norm_codes: Array | None = None
    norms: Float32 | None = None

    def __post_init__(self) -> None:
        expect_ndim("input.codes", self.codes, "rows", "parts")
        expect_ndim("input.centroids", self.centroids, "parts", "256", "size")
        parts, size = self.codes.shape[1], self.centroids.shape[2]
        expect_shape("input.centroids", self.centroids, (parts, NUM_CENTROIDS, size))
        if not (parts - 1) * size < self.columns <= parts * size:
            raise WeightsError(
                f"input.centroids: expected {parts} parts of {self.columns} columns, "
                f"got parts of {size}"
            )
        if (self.norm_codes is None) != (self.norms is None):
            raise WeightsError("input.norms: expected codes and norms, got one of them")
        if self.norm_codes is not None and self.norms is not None:
            expect_shape("input.norm_codes", self.norm_codes, (len(self.codes),))
            expect_shape("input.norms", self.norms, (NUM_CENTROIDS,))

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.codes), self.columns

    def rows(self, numbers: Int64) -> Float32:
        """Return these rows, decoded."""
        parts = np.arange(self.codes.shape[1])
        decoded = self.centroids[parts, self.codes[numbers]]
        if self.norm_codes is not None and self.norms is not None:
            decoded *= self.norms[self.norm_codes[numbers]][:, None, None]
        return decoded.reshape(len(numbers), -1)[:, : self.columns]


Matrix = DenseMatrix | QuantizedMatrix


def sum_rows(matrix: Matrix, numbers: Int64) -> Float32:
    """Return the sum of these rows, added one after another from the first."""
    _, columns = matrix.shape
    step = max(1, _VALUES_AT_ONCE // max(1, columns))
    total: Float32 = np.zeros(columns, dtype=np.float32)
    for start in range(0, len(numbers), step):
        rows = matrix.rows(numbers[start : start + step])
        if start:
            rows[0] += total
        total = rows.sum(axis=0, dtype=np.float32)
    return total
