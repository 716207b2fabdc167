"""The tasks of each family: their inputs and outputs, and the functions that lower them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import spox
from spox import Tensor, Var, argument

from hsoftmax import models
from hsoftmax.bundle import Dtype, Port
from hsoftmax.models.arrays import Array

from . import (
    adaptive_softmax,
    adaptive_top_k,
    huffman_softmax,
    huffman_top_k,
    log_probs,
    sample,
    sparse_block_dot,
    target_log_prob,
    top_k,
)
from .bfloat16 import declare_bfloat16
from .shorten_names import shorten_names
from .weights import TensorView, Weights

OPSET = 21
IR_VERSION = 10

Lowering = Callable[..., tuple[Var, ...]]


@dataclass(frozen=True)
class TaskSpec:
    """A graph function, its inputs in the order of its parameters, and its outputs in order."""

    lowering: Lowering
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True)
class LoweredGraph:
    """A built graph whose weights are inputs until `bind_weights` binds them to `weights.bin`."""

    task: TaskSpec
    proto: onnx.ModelProto
    views: Mapping[str, TensorView]


def lower(model: models.Model, tensors: Mapping[str, Array]) -> dict[str, LoweredGraph]:
    """Build a graph over these tensors for every task of the model's family."""
    return {name: _build_graph(task, model, tensors) for name, task in task_specs(model).items()}


def task_specs(model: models.Model) -> dict[str, TaskSpec]:
    """Return the tasks of the model's family by name."""
    specs: dict[str, TaskSpec] = _TASKS_BY_FAMILY[type(model)](model)
    return specs


def _softmax_tasks(
    model: models.Softmax, lowerings: Mapping[str, Lowering], *, depth: int
) -> dict[str, TaskSpec]:
    """Return the tasks for which the family has a function; `depth` is the number of path steps."""
    hidden = Port(name="hidden", dtype="float32", shape=("batch", model.hidden_size))
    noise = Port(name="noise", dtype="float32", shape=("batch", "samples", depth))
    inputs = {
        "target_log_prob": (
            hidden,
            _port("int64", "row", "pairs"),
            _port("int64", "target", "pairs"),
        ),
        "log_probs": (hidden,),
        "cluster_log_probs": (hidden,),
        "top_k": (hidden, _port("int64", "k", 1), _port("int64", "max_blocks", 1)),
        "sample": (hidden, noise),
    }
    outputs = {
        "target_log_prob": (_port("float32", "log_prob", "pairs"),),
        "log_probs": (_port("float32", "log_probs", "batch", model.num_targets),),
        "cluster_log_probs": (_port("float32", "log_probs", "batch", model.num_clusters or 0),),
        "top_k": (
            _port("float32", "log_prob", "batch", "k"),
            _port("int64", "target", "batch", "k"),
            _port("int64", "blocks", "batch"),
            _port("bool", "exact", "batch"),
        ),
        "sample": (
            _port("int64", "target", "batch", "samples"),
            _port("float32", "log_prob", "batch", "samples"),
        ),
    }
    return {task: TaskSpec(lowerings[task], inputs[task], outputs[task]) for task in lowerings}


def _port(dtype: Dtype, name: str, *shape: int | str) -> Port:
    return Port(name=name, dtype=dtype, shape=shape)


def _hierarchical_softmax(model: models.HierarchicalSoftmax) -> dict[str, TaskSpec]:
    lowerings: dict[str, Lowering] = {
        "target_log_prob": target_log_prob.target_log_prob,
        "log_probs": log_probs.log_probs,
        "cluster_log_probs": log_probs.cluster_log_probs,
        "top_k": top_k.top_k,
        "sample": sample.sample,
    }
    return _softmax_tasks(model, lowerings, depth=len(model.levels))


def _adaptive_softmax(model: models.AdaptiveSoftmax) -> dict[str, TaskSpec]:
    lowerings: dict[str, Lowering] = {
        "target_log_prob": adaptive_softmax.target_log_prob,
        "log_probs": adaptive_softmax.log_probs,
        "cluster_log_probs": adaptive_softmax.cluster_log_probs,
        "top_k": adaptive_top_k.top_k,
        "sample": adaptive_softmax.sample,
    }
    return _softmax_tasks(model, lowerings, depth=2)


def _huffman_softmax(model: models.HuffmanSoftmax) -> dict[str, TaskSpec]:
    lowerings: dict[str, Lowering] = {
        "target_log_prob": huffman_softmax.target_log_prob,
        "log_probs": huffman_softmax.log_probs,
        "top_k": huffman_top_k.top_k,
        "sample": huffman_softmax.sample,
    }
    return _softmax_tasks(model, lowerings, depth=model.depth)


def _sparse_block_dot(model: models.SparseBlockDot) -> dict[str, TaskSpec]:
    return {
        "block_dot": TaskSpec(
            sparse_block_dot.block_dot,
            (
                _port("float32", "h", "batch", "input_window", model.sizes.input_size),
                _port("int64", "input_index", "batch", "input_window"),
                _port("int64", "output_index", "batch", "output_window"),
            ),
            (_port("float32", "output", "batch", "output_window", model.sizes.output_size),),
        )
    }


_TASKS_BY_FAMILY: Mapping[type, Callable[..., dict[str, TaskSpec]]] = {
    models.HierarchicalSoftmax: _hierarchical_softmax,
    models.AdaptiveSoftmax: _adaptive_softmax,
    models.HuffmanSoftmax: _huffman_softmax,
    models.SparseBlockDot: _sparse_block_dot,
}


def _build_graph(task: TaskSpec, model: models.Model, tensors: Mapping[str, Array]) -> LoweredGraph:
    weights = Weights(tensors)
    inputs = {port.name: argument(Tensor(np.dtype(port.dtype), port.shape)) for port in task.inputs}
    results = task.lowering(model, weights, *inputs.values())
    outputs = {port.name: var for port, var in zip(task.outputs, results, strict=True)}
    proto = spox.build({**inputs, **weights.arguments}, outputs)
    declare_bfloat16(proto.graph)
    shorten_names(proto)
    return LoweredGraph(task, proto, weights.views)
