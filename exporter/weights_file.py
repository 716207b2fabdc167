"""`weights.bin`: every tensor once, little-endian, C order, each at an aligned offset."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

import bundle
from models.arrays import Array


def write_weights(path: Path, tensors: Mapping[str, Array]) -> tuple[bundle.Tensor, ...]:
    """Write the tensors and return their table."""
    table: list[bundle.Tensor] = []
    with path.open("wb") as file:
        for name, tensor in tensors.items():
            file.write(bytes(-file.tell() % bundle.ALIGNMENT))
            table.append(_entry(name, tensor, file.tell()))
            little = np.ascontiguousarray(tensor, dtype=tensor.dtype.newbyteorder("<"))
            file.write(little.data)
    return tuple(table)


def _entry(name: str, tensor: Array, offset: int) -> bundle.Tensor:
    return bundle.Tensor.model_validate(
        {"name": name, "dtype": tensor.dtype.name, "shape": tensor.shape, "offset": offset}
    )
