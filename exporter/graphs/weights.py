"""Model weights as graph arguments, which are bound to `weights.bin` after the graph is built.

A graph function thus uses weights of static shapes without reading their bytes. One tensor can have
two shapes in a graph without a copy: ONNX Runtime would fold a `Reshape` of an external initializer
into a private copy when the session loads.
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
class TensorView:
    """The bytes of one tensor, from an element on, under a shape."""

    tensor: str
    shape: tuple[int, ...]
    start: int = 0


class Weights:
    """The tensors of a model as graph arguments, created on first use and recorded for binding."""

    def __init__(self, tensors: Mapping[str, Array]) -> None:
        self._tensors = tensors
        self._arguments: dict[TensorView, Var] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the stored type of a tensor."""
        return self._tensors[name].dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the stored shape of a tensor."""
        return self._tensors[name].shape

    def __getitem__(self, name: str) -> Var:
        return self.view(name, *self._tensors[name].shape)

    def view(self, name: str, *shape: int) -> Var:
        """Return the whole tensor under a shape with as many elements."""
        if math.prod(shape) != self._tensors[name].size:
            size = self._tensors[name].size
            raise ValueError(f"{name}: expected a shape of {size} elements, got {shape}")
        return self._argument(TensorView(name, shape))

    def rows(self, name: str, start: int, *shape: int) -> Var:
        """Return the tensor from index `start` of its first axis on, under a shape."""
        tensor = self._tensors[name]
        first = start * math.prod(tensor.shape[1:])
        if first + math.prod(shape) > tensor.size:
            raise ValueError(
                f"{name}: expected at most {tensor.size - first} elements, got {shape}"
            )
        return self._argument(TensorView(name, shape, first))

    def _argument(self, view: TensorView) -> Var:
        if view not in self._arguments:
            dtype = self._tensors[view.tensor].dtype
            self._arguments[view] = argument(Tensor(dtype, view.shape))
        return self._arguments[view]

    @property
    def arguments(self) -> dict[str, Var]:
        """All arguments created so far, by the names that `bind_weights` uses."""
        return {_argument_name(view): var for view, var in self._arguments.items()}

    @property
    def views(self) -> dict[str, TensorView]:
        return {_argument_name(view): view for view in self._arguments}


def _argument_name(view: TensorView) -> str:
    return f"{view.tensor}[{','.join(map(str, view.shape))}]@{view.start}"


def bind_weights(
    proto: onnx.ModelProto,
    views: Mapping[str, TensorView],
    table: Mapping[str, bundle.StoredTensor],
) -> onnx.ModelProto:
    """Replace the weight inputs of a built graph by external initializers in `weights.bin`."""
    bound = onnx.ModelProto()
    bound.CopyFrom(proto)
    inputs = [i for i in bound.graph.input if i.name not in views]
    weight_names = [i.name for i in bound.graph.input if i.name in views]
    del bound.graph.input[:]
    bound.graph.input.extend(inputs)
    bound.graph.initializer.extend(
        _external_tensor(name, views[name], table) for name in weight_names
    )
    return bound


def _external_tensor(
    name: str, view: TensorView, table: Mapping[str, bundle.StoredTensor]
) -> onnx.TensorProto:
    entry = table[view.tensor]
    proto = onnx.TensorProto(
        name=name,
        dims=view.shape,
        data_type=_onnx_type(entry),
    )
    if not math.prod(view.shape):  # some versions of ONNX Runtime cannot read zero bytes
        return proto
    proto.data_location = onnx.TensorProto.EXTERNAL
    itemsize = entry.stored_dtype.itemsize
    location = {
        "location": bundle.WEIGHTS,
        "offset": entry.offset + view.start * itemsize,
        "length": math.prod(view.shape) * itemsize,
    }
    for key, value in location.items():
        proto.external_data.add(key=key, value=str(value))
    return proto


def _onnx_type(entry: bundle.StoredTensor) -> int:
    if entry.dtype == "bfloat16":
        return onnx.TensorProto.BFLOAT16
    return onnx.helper.np_dtype_to_tensor_dtype(entry.stored_dtype)
