"""Multiplies out weight normalisation: a weight that is saved as a length and a direction.

    weight = g * v / |v|

PyTorch saves g and v in place of the weight: `weight_g` and `weight_v`, or, by its newer
parametrizations, `parametrizations.weight.original0` and `.original1`. |v| is taken over all axes
along which g has one number: for a linear layer over each row, or over all of v if g is one number.
The product is computed in float64, so that only one rounding to float32 remains.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hsoftmax.exporter.errors import SourceError
from hsoftmax.models.arrays import Array

_NAME = re.compile(
    r"(?P<before>(.*\.)?)"
    r"((?P<weight>[^.]*weight)_(?P<part>[gv])"
    r"|parametrizations\.(?P<parametrized>[^.]*weight)\.original(?P<number>[01]))"
)


def multiplied_name(name: str) -> str:
    """Return the name of the weight for the name of a part of it, and every other name as it is."""
    return _split(name)[0]


def multiply_weight_norms(tensors: Mapping[str, Array], path: Path) -> dict[str, Array]:
    """Return the tensors with one weight in place of each pair of g and v.

    A part without the other, or beside a weight of the same name, stays as it is.

    Raises:
        SourceError: shapes that do not fit each other, or a direction of length 0.
    """
    result = dict(tensors)
    for length_name, length in tensors.items():
        weight_name, part = _split(length_name)
        direction_name = _direction_name(length_name)
        if part == "g" and weight_name not in tensors and direction_name in tensors:
            direction = tensors[direction_name]
            del result[length_name], result[direction_name]
            result[weight_name] = _multiply(length, direction, f"{path.name}: {weight_name}")
    return result


def _split(name: str) -> tuple[str, str]:
    """Return the weight's name, and "g", "v" or nothing."""
    match = _NAME.fullmatch(name)
    if match is None:
        return name, ""
    part = match["part"] or "gv"[int(match["number"])]
    return f"{match['before']}{match['weight'] or match['parametrized']}", part


def _direction_name(length_name: str) -> str:
    """Return the name of the v that belongs to a g."""
    return f"{length_name[:-1]}{'1' if length_name.endswith('0') else 'v'}"


def _axes(length: tuple[int, ...], direction: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes over which a length is taken; none if the shapes do not fit."""
    if not length:
        return tuple(range(len(direction)))
    fits = len(length) == len(direction) and all(
        n in {1, size} for n, size in zip(length, direction, strict=True)
    )
    return tuple(axis for axis, n in enumerate(length) if n == 1) if fits else ()


def _multiply(length: Array, direction: Array, name: str) -> Array:
    axes = _axes(length.shape, direction.shape)
    if not axes:
        raise SourceError(
            f"{name}: expected lengths of rows of a weight {list(direction.shape)}, "
            f"got {list(length.shape)}"
        )
    v = direction.astype(np.float64)
    norm = np.sqrt(np.sum(v * v, axis=axes, keepdims=True))
    if not norm.all():
        raise SourceError(f"{name}: expected directions with a length, got one of zeros")
    product: Array = length.astype(np.float64) * v / norm
    return product
