"""The inputs and the targets of a call, in the forms that users have them.

Rows of numbers travel as one `.npy` matrix. Other inputs (texts, or arrays by name) are for models
that turn them into hidden states; they travel as JSON, as they are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hsoftmax.models import QueryError
from hsoftmax.models.arrays import Array, Float32

Inputs = ArrayLike | Mapping[str, Any]
FlatTargets = Sequence[int] | Sequence[str] | Sequence[int | str] | Array
ListedTargets = (
    Sequence[Sequence[int]] | Sequence[list[str]] | Sequence[list[int | str]] | Sequence[Array]
)
Targets = FlatTargets | ListedTargets


def as_matrix(inputs: Inputs) -> Float32 | None:
    """Returns rows of numbers as float32 in C order, or None if the inputs are no numbers.

    Raises:
        QueryError: rows of different lengths, other values than numbers, or one text alone.
    """
    if isinstance(inputs, str | bytes):
        raise QueryError("inputs: expected a list of rows, got one text: put it in a list")
    if _is_text(inputs):
        return None
    try:
        array = np.asarray(inputs)
    except ValueError:
        raise QueryError("inputs: expected rows of one length, got different ones") from None
    if array.dtype.kind not in "fiu":
        raise QueryError(
            f"inputs: expected rows of numbers, or texts as a list, got dtype {array.dtype}"
        )
    if array.ndim != 2:
        raise QueryError(f"inputs: expected [rows, hidden_size], got {list(array.shape)}")
    with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, and is refused
        return np.ascontiguousarray(array, dtype=np.float32)


def _is_text(inputs: Inputs) -> bool:
    """True for arrays by name, for texts, and for lists of words."""
    if isinstance(inputs, Mapping):
        return True
    if isinstance(inputs, np.ndarray) or not isinstance(inputs, Sequence) or not len(inputs):
        return False
    first = inputs[0]
    if isinstance(first, Sequence) and not isinstance(first, str) and len(first):
        first = first[0]
    return isinstance(first, str)


def are_listed(targets: Targets) -> bool:
    """True if the targets are a list for each row, False if they are one for each row."""
    if isinstance(targets, np.ndarray):
        return targets.ndim > 1
    return any(isinstance(one, (list, tuple, np.ndarray)) for one in targets)


def plain_targets(targets: Targets) -> list[Any]:
    """Returns the targets as Python lists of integers and texts."""
    if isinstance(targets, np.ndarray):
        listed: list[Any] = targets.tolist()
        return listed
    return [_plain(one) for one in targets]


def _plain(target: object) -> object:
    if isinstance(target, np.ndarray | np.generic):
        return target.tolist()
    if isinstance(target, (list, tuple)):
        return [_plain(one) for one in target]
    return target
