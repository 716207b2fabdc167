"""The tensors that an operation declares: its inputs beside the rows, its outputs, its parameters.

`metadata` lists them, and `infer` finds the operations that a request needs by them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hsoftmax.models.arrays import Array, Float32, Float64
from hsoftmax.models.probability import to_probability
from hsoftmax.service.repository.loaded_bundle import LoadedBundle

from .datatypes import FLOATS, INTEGERS
from .tensor import Tensor, TensorData, expect_accepted

# A log-probability of minus infinity is this number: JSON has no infinities. Its exp is 0.
MIN_LOG_PROB = float(np.finfo(np.float32).min)

Dim = int | str  # a name is a size of the bundle, or free
ReadInput = Callable[[Mapping[str, Tensor]], Any]


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The result of an operation's graph call.

    Attributes:
        query: the operation's query, with arrays in place of lists
        outputs: the graph's outputs by name; none if there was nothing to compute
    """

    query: Any
    bundle: LoadedBundle
    outputs: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class InputTensor:
    """An input tensor of an operation, beside the rows.

    Attributes:
        datatype: the one that is listed; `accepted` has all
        field: the field of the query that it becomes; None for one that another input reads
        read: returns the value of that field from the tensors of the request
    """

    name: str
    datatype: str
    shape: tuple[Dim, ...]
    field: str | None
    accepted: frozenset[str]
    read: ReadInput | None = None

    def value(self, tensors: Mapping[str, Tensor]) -> Any:  # noqa: ANN401
        """Return the value of the field. Raises InvalidQuery for a tensor of another datatype."""
        if self.read is not None:
            return self.read(tensors)
        tensor = tensors[self.name]
        expect_accepted(tensor, self.accepted)
        return tensor.data


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """An output tensor of an operation.

    Attributes:
        task: the task of the plan that it comes from; a bundle without that graph does not have it
        read: returns the data from the result
        inputs: the input tensors that its query has, beside the rows
        is_default: part of the answer to a request that names no outputs
        needs_labels: only bundles with labels have it
    """

    name: str
    datatype: str
    shape: tuple[Dim, ...]
    task: str
    read: Callable[[TaskResult], TensorData]
    inputs: tuple[str, ...] = ()
    is_default: bool = True
    needs_labels: bool = False


@dataclass(frozen=True, slots=True)
class OperationTensors:
    """The tensors of one operation.

    Attributes:
        parameters: the fields of its query that a request gives as parameters
        answers_by_default: a request without outputs may get this operation's
        count_parameter: the parameter that `classification` sets
        classes: by the output that `classification` is asked of, what it returns in its place
    """

    outputs: tuple[OutputTensor, ...]
    inputs: tuple[InputTensor, ...] = ()
    parameters: tuple[str, ...] = ()
    answers_by_default: bool = False
    count_parameter: str = ""
    classes: Mapping[str, Callable[[TaskResult], list[bytes]]] = field(default_factory=dict)


def numbers_input(name: str, shape: tuple[Dim, ...]) -> InputTensor:
    """Declare an input of floats that becomes the field of the same name."""
    return InputTensor(name, "FP32", shape, name, FLOATS)


def indices_input(name: str, shape: tuple[Dim, ...]) -> InputTensor:
    """Declare an input of integers that becomes the field of the same name."""
    return InputTensor(name, "INT64", shape, name, INTEGERS)


def finite_log_probs(log_probs: Array, bundle: LoadedBundle) -> Float32:
    """Return log-probabilities as every answer has them: finite, and none above the largest."""
    clipped: Float32 = np.clip(log_probs, MIN_LOG_PROB, bundle.max_log_prob, dtype=np.float32)
    return clipped


def probabilities(log_probs: Array, bundle: LoadedBundle) -> Float64:
    """Return the probabilities in float64, which holds those that float32 rounds to 0."""
    return to_probability(np.minimum(log_probs, bundle.max_log_prob, dtype=np.float32))


def label_bytes(targets: Array, bundle: LoadedBundle) -> list[bytes]:
    """Return the label of each target, in row order; that of target -1 is empty."""
    labels = bundle.labels or ()
    return [labels[target].encode() if target >= 0 else b"" for target in targets.ravel().tolist()]
