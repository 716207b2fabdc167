"""Short names for ONNX operators, so that a graph function reads like its equation."""

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var


def ints(*values: int) -> Var:
    """Return a constant int64 vector."""
    return op.const(np.array(values, dtype=np.int64))


def integer(value: int) -> Var:
    """Return a constant int64 scalar."""
    return op.const(np.int64(value))


def real(value: float) -> Var:
    """Return a constant float32 scalar."""
    return op.const(np.float32(value))


def true() -> Var:
    """Return a constant bool scalar True."""
    return op.const(np.array(True))


def length(x: Var, axis: int = 0) -> Var:
    """Return the size of one axis as [1]."""
    return op.shape(x, start=axis, end=axis + 1)


def count(x: Var, axis: int = 0) -> Var:
    """Return the size of one axis as a scalar."""
    return scalar(length(x, axis))


def static_size(x: Var, axis: int) -> int:
    """Return the size of an axis; raise TypeError if the graph does not fix it."""
    size = (x.unwrap_tensor().shape or ())[axis]
    if not isinstance(size, int):
        raise TypeError(f"axis {axis}: expected a size known beforehand, got {size}")
    return size


def scalar(x: Var) -> Var:
    """Reshape a tensor of one element to a scalar."""
    return op.reshape(x, op.const(np.array([], dtype=np.int64)))


def vector(x: Var) -> Var:
    """Reshape a tensor to one axis."""
    return op.reshape(x, ints(-1))


def column(x: Var) -> Var:
    """Reshape a vector [n] to [n, 1]."""
    return op.reshape(x, ints(-1, 1))


def between(x: Var, start: Var, end: Var, axis: int = 0) -> Var:
    """Return x[start:end] along one axis; start and end are [1]."""
    return op.slice(x, start, end, ints(axis))


def transpose(x: Var) -> Var:
    """Transpose a matrix."""
    return op.transpose(x, perm=(1, 0))


def arange(end: Var) -> Var:
    """Return 0, 1, ..., end - 1 for a scalar end."""
    return op.range(integer(0), end, integer(1))


def full(shape: Var, value: float | int | bool) -> Var:
    """Return a tensor filled with one value, of type float32, int64 or bool like the value."""
    dtype = {float: np.float32, int: np.int64, bool: np.bool_}[type(value)]
    return op.expand(op.const(np.array(value, dtype=dtype)), shape)


def concat(*parts: Var, axis: int = 0) -> Var:
    return op.concat(parts, axis=axis)


def as_int(x: Var) -> Var:
    return op.cast(x, to=np.int64)


def as_float(x: Var) -> Var:
    """Cast to float32 unless it is float32 already."""
    return x if x.unwrap_tensor().dtype == np.float32 else op.cast(x, to=np.float32)


def positions(condition: Var) -> Var:
    """Return the indices of the true elements of a bool vector."""
    return vector(op.non_zero(condition))


def pick(table: Var, row: Var, column: Var) -> Var:
    """Return table[row[p], at[p]] for every p."""
    return op.gather(vector(table), op.add(op.mul(row, length(table, axis=1)), column))


def extend(x: Var, size: Var) -> Var:
    """Pad axis 0 with zeros up to `size` [1] rows."""
    return op.pad(x, concat(ints(0), op.sub(size, length(x))), axes=ints(0))
