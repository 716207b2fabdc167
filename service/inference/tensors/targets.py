"""The input tensors of targets: `target`, and `row` for pairs in any order."""

from collections.abc import Mapping

from hsoftmax.models.arrays import Array
from hsoftmax.service.inference.validation import TargetArray

from .datatypes import BYTES, INTEGERS
from .declaration import InputTensor
from .inputs import texts_of
from .tensor import Tensor, expect_accepted


def _read_targets(tensors: Mapping[str, Tensor]) -> TargetArray:
    target, row = tensors["target"], tensors.get("row")
    expect_accepted(target, INTEGERS | {BYTES})
    values = texts_of(target) if isinstance(target.data, list) else target.data
    return TargetArray(values, target.shape, None if row is None else _integers(row))


def _integers(tensor: Tensor) -> Array:
    expect_accepted(tensor, INTEGERS)
    assert not isinstance(tensor.data, list)
    return tensor.data


TARGET_INPUTS = (
    InputTensor(
        "target", "INT64", ("rows", "targets"), "targets", INTEGERS | {BYTES}, _read_targets
    ),
    InputTensor("row", "INT64", ("pairs",), None, INTEGERS),
)
