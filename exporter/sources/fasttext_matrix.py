"""Reads fastText's matrices: dense, or product-quantised as in a `.ftz` file.

A quantised row is split into subvectors; each is stored as the number of one of 256 centroids. With
qnorm, the row's norm is stored separately and quantised in the same way.
"""

from dataclasses import dataclass

import numpy as np

from hsoftmax.exporter.files.input_file import expect_justified
from hsoftmax.featurizers import DenseMatrix, QuantizedMatrix
from hsoftmax.featurizers.matrix import Matrix
from hsoftmax.models.arrays import Array, Float32

from .binary_file import BinaryFile

_NUM_CENTROIDS = 256


@dataclass(frozen=True)
class MatrixShape:
    rows: int
    columns: int


@dataclass(frozen=True)
class ProductQuantizer:
    """Centroids of each subvector; the last subvector may be shorter."""

    columns: int
    parts: int
    size: int
    last_size: int
    centroids: Float32

    def padded_centroids(self) -> Float32:
        """Return [parts, 256, size], with zeros after the values of a shorter last part.

        A single part has the size of the last one.
        """
        size = self.size if self.parts > 1 else self.last_size
        padded = np.zeros((self.parts, _NUM_CENTROIDS, size), dtype=np.float32)
        full_parts_size = (self.parts - 1) * _NUM_CENTROIDS * self.size
        padded[:-1] = self.centroids[:full_parts_size].reshape(-1, _NUM_CENTROIDS, size)
        last = self.centroids[full_parts_size:].reshape(_NUM_CENTROIDS, self.last_size)
        padded[-1, :, : self.last_size] = last
        return padded

    def decode(self, codes: Array) -> Float32:
        """Decode codes [rows, parts] to values [rows, columns]."""
        full_parts_size, size = (self.parts - 1) * _NUM_CENTROIDS * self.size, self.size
        full_parts = self.centroids[:full_parts_size].reshape(self.parts - 1, _NUM_CENTROIDS, size)
        last = self.centroids[full_parts_size:].reshape(_NUM_CENTROIDS, self.last_size)
        decoded = [part[codes[:, i]] for i, part in enumerate([*full_parts, last])]
        return np.concatenate(decoded, axis=1)


def read_matrix(file: BinaryFile, field: str, expected: MatrixShape, *, quantised: bool) -> Float32:
    """Read a matrix of the expected shape as float32.

    Raises:
        SourceError: another shape, which is compared before the matrix is decoded, or more numbers
            than the length of the file justifies.
    """
    return (_read_quantised if quantised else _read_dense)(file, field, expected)


def map_matrix(file: BinaryFile, field: str, columns: int, *, quantised: bool) -> Matrix:
    """Return a matrix of any number of rows as it is stored: a map, or codes and centroids.

    Raises:
        SourceError: another number of columns, which is compared before the matrix is mapped.
    """
    if not quantised:
        shape = _read_shape(file, field)
        expect_columns(file, field, shape, columns)
        values = file.mapped(field, np.float32, shape.rows * shape.columns)
        return DenseMatrix(values.reshape(shape.rows, shape.columns))
    shape, codes, quantizer, norms = _read_quantised_parts(file, field)
    expect_columns(file, field, shape, columns)
    return QuantizedMatrix(
        columns=shape.columns,
        codes=codes,
        centroids=quantizer.padded_centroids(),
        norm_codes=None if norms is None else norms[0],
        norms=None if norms is None else norms[1].centroids,
    )


def skip_matrix(file: BinaryFile, field: str, *, quantised: bool) -> MatrixShape:
    """Skip a matrix and return its shape."""
    if quantised:
        return _read_quantised_parts(file, field)[0]
    shape = _read_shape(file, field)
    file.skip(field, shape.rows * shape.columns, 4)
    return shape


def _read_dense(file: BinaryFile, field: str, expected: MatrixShape) -> Float32:
    shape = _read_shape(file, field)
    _expect_shape(file, field, shape, expected)
    values = file.array(field, np.float32, shape.rows * shape.columns)
    return values.reshape(shape.rows, shape.columns)


def _read_quantised(file: BinaryFile, field: str, expected: MatrixShape) -> Float32:
    shape, codes, quantizer, norms = _read_quantised_parts(file, field)
    _expect_shape(file, field, shape, expected)
    expect_justified(f"{file.name}: {field}", 4 * shape.rows * shape.columns, file.num_bytes)
    decoded = quantizer.decode(codes)
    if norms is not None:
        norm_codes, norm_quantizer = norms
        decoded *= norm_quantizer.decode(norm_codes.reshape(shape.rows, 1))
    return decoded


def _read_quantised_parts(
    file: BinaryFile, field: str
) -> tuple[MatrixShape, Array, ProductQuantizer, tuple[Array, ProductQuantizer] | None]:
    """Read (shape, codes, quantizer, the codes of norms and their quantizer)."""
    with_norms = file.flag(f"{field}: qnorm")
    shape = _read_shape(file, field)
    size = file.size(f"{field}: codes", np.int32)
    codes = file.array(f"{field}: codes", np.uint8, size)
    quantizer = _read_quantizer(file, field, shape.columns)
    if size != shape.rows * quantizer.parts:
        expected = f"{shape.rows} x {quantizer.parts}"
        raise file.damaged(f"{field}: expected {expected} codes, got {size}")
    norms = _read_norms(file, field, shape.rows) if with_norms else None
    return shape, codes.reshape(shape.rows, quantizer.parts), quantizer, norms


def _read_norms(file: BinaryFile, field: str, rows: int) -> tuple[Array, ProductQuantizer]:
    codes = file.array(f"{field}: norms", np.uint8, rows)
    return codes, _read_quantizer(file, f"{field}: norms", 1)


def _read_quantizer(file: BinaryFile, field: str, columns: int) -> ProductQuantizer:
    dim, parts, size, last = (
        file.size(f"{field}: quantizer", np.int32, minimum=1) for _ in range(4)
    )
    fits = (parts - 1) * size + last == columns and (parts == 1 or last <= size)
    if dim != columns or not fits:
        raise file.damaged(
            f"{field}: expected a quantizer of {columns} columns, got {dim} in {parts} parts of "
            f"{size}, the last of {last}"
        )
    centroids = file.array(f"{field}: centroids", np.float32, dim * _NUM_CENTROIDS)
    return ProductQuantizer(dim, parts, size, last, centroids)


def _expect_shape(file: BinaryFile, field: str, shape: MatrixShape, expected: MatrixShape) -> None:
    if shape != expected:
        raise file.damaged(
            f"{field}: expected [{expected.rows}, {expected.columns}], "
            f"got [{shape.rows}, {shape.columns}]"
        )


def expect_columns(file: BinaryFile, field: str, shape: MatrixShape, columns: int) -> None:
    """Raise SourceError if the matrix has another number of columns."""
    if shape.columns != columns:
        raise file.damaged(f"{field}: expected {columns} columns, got {shape.columns}")


def _read_shape(file: BinaryFile, field: str) -> MatrixShape:
    rows, columns = (file.size(f"{field}: {axis}", np.int64) for axis in ("rows", "columns"))
    return MatrixShape(rows, columns)
