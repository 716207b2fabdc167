"""`weights.bin`: every tensor once, little-endian, C order, each at an aligned offset."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from hsoftmax import bundle
from hsoftmax.models.arrays import Array

_AT_ONCE = 64 * 2**20  # bytes


def write_weights(path: Path, tensors: Mapping[str, Array]) -> tuple[bundle.Tensor, ...]:
    """Write the tensors and return their table."""
    table: list[bundle.Tensor] = []
    with path.open("wb") as file:
        for name, tensor in tensors.items():
            file.write(bytes(-file.tell() % bundle.ALIGNMENT))
            table.append(_entry(name, tensor, file.tell()))
            for part in _parts(tensor):
                file.write(np.ascontiguousarray(part, part.dtype.newbyteorder("<")).data)
    return tuple(table)


def _parts(tensor: Array) -> Iterator[Array]:
    """Slices of the first axis, so that a view need not be copied as a whole to be written."""
    length = max(1, _AT_ONCE * len(tensor) // max(1, tensor.nbytes))
    for start in range(0, len(tensor), length):
        yield tensor[start : start + length]


def _entry(name: str, tensor: Array, offset: int) -> bundle.Tensor:
    return bundle.Tensor.model_validate(
        {"name": name, "dtype": tensor.dtype.name, "shape": tensor.shape, "offset": offset}
    )
