"""Writes `weights.bin`: every tensor once, little-endian, in C order, each at an aligned offset."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from hsoftmax import bundle
from hsoftmax.models.arrays import Array

_MAX_CHUNK_BYTES = 64 * 2**20


def write_weights(path: Path, tensors: Mapping[str, Array]) -> tuple[bundle.StoredTensor, ...]:
    """Write the tensors and return their table."""
    table: list[bundle.StoredTensor] = []
    with path.open("wb") as file:
        for name, tensor in tensors.items():
            file.write(bytes(-file.tell() % bundle.ALIGNMENT))
            table.append(_table_entry(name, tensor, file.tell()))
            for chunk in _chunks(tensor):
                file.write(np.ascontiguousarray(chunk, chunk.dtype.newbyteorder("<")).data)
    return tuple(table)


def _chunks(tensor: Array) -> Iterator[Array]:
    """Yield slices of the first axis, so that a transposed view is copied chunk by chunk."""
    rows_per_chunk = max(1, _MAX_CHUNK_BYTES * len(tensor) // max(1, tensor.nbytes))
    for start in range(0, len(tensor), rows_per_chunk):
        yield tensor[start : start + rows_per_chunk]


def _table_entry(name: str, tensor: Array, offset: int) -> bundle.StoredTensor:
    """Describe a tensor; one of uint16 holds the bits of bfloat16, which NumPy does not have."""
    dtype = "bfloat16" if tensor.dtype == np.uint16 else tensor.dtype.name
    return bundle.StoredTensor.model_validate(
        {"name": name, "dtype": dtype, "shape": tensor.shape, "offset": offset}
    )
