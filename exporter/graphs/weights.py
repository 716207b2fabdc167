"""Weights enter a graph as typed arguments and are bound to `weights.bin` after it is built.

So graph functions read like the equation with static shapes, never touch a weight's bytes, and one
tensor can stand in a graph under two shapes without a copy: a `Reshape` of an external initializer
would be folded into a private copy of it when the session loads.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from spox import Tensor, Var, argument

from hsoftmax import bundle
from hsoftmax.models.arrays import Array


@dataclass(frozen=True)
class View:
    """The bytes of one tensor, from some element on, under a shape."""

    tensor: str
    shape: tuple[int, ...]
    start: int = 0


class Weights:
    """The tensors of a model as graph arguments, made on demand and remembered for binding."""

    def __init__(self, tensors: Mapping[str, Array]) -> None:
        self._tensors = tensors
        self._arguments: dict[View, Var] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def dtype(self, name: str) -> np.dtype[Any]:
        """The type in which the tensor is stored."""
        return self._tensors[name].dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape in which the tensor is stored."""
        return self._tensors[name].shape

    def __getitem__(self, name: str) -> Var:
        return self.view(name, *self._tensors[name].shape)

    def view(self, name: str, *shape: int) -> Var:
        """The tensor's bytes as if it had this shape, which must have as many elements."""
        if math.prod(shape) != self._tensors[name].size:
            size = self._tensors[name].size
            raise ValueError(f"{name}: expected a shape of {size} elements, got {shape}")
        return self._argument(View(name, shape))

    def rows(self, name: str, start: int, *shape: int) -> Var:
        """The tensor's bytes from some place of its first axis on, as if they had this shape."""
        tensor = self._tensors[name]
        first = start * math.prod(tensor.shape[1:])
        if first + math.prod(shape) > tensor.size:
            raise ValueError(
                f"{name}: expected at most {tensor.size - first} elements, got {shape}"
            )
        return self._argument(View(name, shape, first))

    def _argument(self, view: View) -> Var:
        if view not in self._arguments:
            dtype = self._tensors[view.tensor].dtype
            self._arguments[view] = argument(Tensor(dtype, view.shape))
        return self._arguments[view]

    @property
    def arguments(self) -> dict[str, Var]:
        """Every argument made so far, by the name that `bind` knows it by."""
        return {_argument_name(view): var for view, var in self._arguments.items()}

    @property
    def views(self) -> dict[str, View]:
        return {_argument_name(view): view for view in self._arguments}


def _argument_name(view: View) -> str:
    return f"{view.tensor}[{','.join(map(str, view.shape))}]@{view.start}"


def bind(
    proto: onnx.ModelProto, views: Mapping[str, View], table: Mapping[str, bundle.Tensor]
) -> onnx.ModelProto:
    """Turn the weight inputs of a built graph into external initializers over `weights.bin`."""
    bound = onnx.ModelProto()
    bound.CopyFrom(proto)
    inputs = [i for i in bound.graph.input if i.name not in views]
    used = [i.name for i in bound.graph.input if i.name in views]
    del bound.graph.input[:]
    bound.graph.input.extend(inputs)
    bound.graph.initializer.extend(_external(name, views[name], table) for name in used)
    return bound


def _external(name: str, view: View, table: Mapping[str, bundle.Tensor]) -> onnx.TensorProto:
    entry = table[view.tensor]
    proto = onnx.TensorProto(
        name=name,
        dims=view.shape,
        data_type=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(entry.dtype)),
    )
    if not math.prod(view.shape):  # some versions of ONNX Runtime cannot read nothing from a file
        return proto
    proto.data_location = onnx.TensorProto.EXTERNAL
    item = np.dtype(entry.dtype).itemsize
    place = {
        "location": bundle.WEIGHTS,
        "offset": entry.offset + view.start * item,
        "length": math.prod(view.shape) * item,
    }
    for key, value in place.items():
        proto.external_data.add(key=key, value=str(value))
    return proto
