"""fastText's matrices: dense, or product-quantised as in a `.ftz`.

A quantised row is split into subvectors; each is the number of one of 256 centroids. With qnorm
the row's length is apart, and quantised likewise.
"""

from dataclasses import dataclass

import numpy as np

from hsoftmax.models.arrays import Array, Float32

from .binary_file import BinaryFile

_CENTROIDS = 256


@dataclass(frozen=True)
class Shape:
    rows: int
    columns: int


@dataclass(frozen=True)
class ProductQuantizer:
    """Centroids of each subvector; the last one may be shorter."""

    columns: int
    parts: int
    size: int
    last_size: int
    centroids: Float32

    def decode(self, codes: Array) -> Float32:
        """[rows, parts] -> [rows, columns]."""
        whole, size = (self.parts - 1) * _CENTROIDS * self.size, self.size
        first = self.centroids[:whole].reshape(self.parts - 1, _CENTROIDS, size)
        last = self.centroids[whole:].reshape(_CENTROIDS, self.last_size)
        decoded = [part[codes[:, i]] for i, part in enumerate([*first, last])]
        return np.concatenate(decoded, axis=1)


def read_matrix(file: BinaryFile, what: str, *, quantised: bool) -> Float32:
    """[rows, columns] in float32."""
    return _read_quantised(file, what) if quantised else _read_dense(file, what)


def skip_matrix(file: BinaryFile, what: str, *, quantised: bool) -> Shape:
    """Leave a matrix out: its shape."""
    if quantised:
        return _read_codes(file, what)[0]
    shape = _read_shape(file, what)
    file.skip(what, shape.rows * shape.columns, 4)
    return shape


def _read_dense(file: BinaryFile, what: str) -> Float32:
    shape = _read_shape(file, what)
    values = file.array(what, np.float32, shape.rows * shape.columns)
    return values.reshape(shape.rows, shape.columns)


def _read_quantised(file: BinaryFile, what: str) -> Float32:
    _, codes, quantizer, norms = _read_codes(file, what)
    decoded = quantizer.decode(codes)
    if norms is not None:
        decoded *= norms
    return decoded


def _read_codes(
    file: BinaryFile, what: str
) -> tuple[Shape, Array, ProductQuantizer, Float32 | None]:
    with_norms = file.flag(f"{what}: qnorm")
    shape = _read_shape(file, what)
    size = file.size(f"{what}: codes", np.int32)
    codes = file.array(f"{what}: codes", np.uint8, size)
    quantizer = _read_quantizer(file, what, shape.columns)
    if size != shape.rows * quantizer.parts:
        wanted = f"{shape.rows} x {quantizer.parts}"
        raise file.damaged(f"{what}: expected {wanted} codes, got {size}")
    norms = _read_norms(file, what, shape.rows) if with_norms else None
    return shape, codes.reshape(shape.rows, quantizer.parts), quantizer, norms


def _read_norms(file: BinaryFile, what: str, rows: int) -> Float32:
    codes = file.array(f"{what}: norms", np.uint8, rows)
    return _read_quantizer(file, f"{what}: norms", 1).decode(codes.reshape(rows, 1))


def _read_quantizer(file: BinaryFile, what: str, columns: int) -> ProductQuantizer:
    dim, parts, size, last = (file.size(f"{what}: quantizer", np.int32, least=1) for _ in range(4))
    if dim != columns or (parts - 1) * size + last != columns:
        raise file.damaged(
            f"{what}: expected a quantizer of {columns} columns, got {dim} in {parts} parts of "
            f"{size}, the last of {last}"
        )
    centroids = file.array(f"{what}: centroids", np.float32, dim * _CENTROIDS)
    return ProductQuantizer(dim, parts, size, last, centroids)


def _read_shape(file: BinaryFile, what: str) -> Shape:
    rows, columns = (file.size(f"{what}: {axis}", np.int64) for axis in ("rows", "columns"))
    return Shape(rows, columns)
