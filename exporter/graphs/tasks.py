"""Which tasks a family has, what goes in and out of each, and the function that lowers it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import spox
from spox import Tensor, Var, argument

import models
from bundle import Port
from models.arrays import Array

from . import hierarchical_softmax
from .weights import View, Weights

OPSET = 21
IR_VERSION = 10

Lowering = Callable[..., tuple[Var, ...]]


@dataclass(frozen=True)
class Task:
    """A graph function, its inputs in the order of its arguments, and its outputs likewise."""

    lowering: Lowering
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True)
class Lowered:
    """A built graph whose weights are still inputs, to be bound to `weights.bin`."""

    task: Task
    proto: onnx.ModelProto
    views: Mapping[str, View]


def lower(model: models.Model, tensors: Mapping[str, Array]) -> dict[str, Lowered]:
    """Every task of the model's family as a graph over these tensors."""
    return {name: _build(task, model, tensors) for name, task in tasks(model).items()}


def tasks(model: models.Model) -> dict[str, Task]:
    """The tasks of the model's family, by name."""
    family = hierarchical_softmax
    hidden = Port(name="hidden", dtype="float32", shape=("batch", model.hidden_size))
    pairs = tuple(Port(name=name, dtype="int64", shape=("pairs",)) for name in ("row", "target"))
    limits = tuple(Port(name=name, dtype="int64", shape=(1,)) for name in ("k", "max_blocks"))
    return {
        "target_log_prob": Task(
            family.target_log_prob,
            (hidden, *pairs),
            (Port(name="log_prob", dtype="float32", shape=("pairs",)),),
        ),
        "log_probs": Task(
            family.log_probs,
            (hidden,),
            (Port(name="log_probs", dtype="float32", shape=("batch", model.num_targets)),),
        ),
        "cluster_log_probs": Task(
            family.cluster_log_probs,
            (hidden,),
            (Port(name="log_probs", dtype="float32", shape=("batch", model.num_clusters)),),
        ),
        "top_k": Task(
            family.top_k,
            (hidden, *limits),
            (
                Port(name="log_prob", dtype="float32", shape=("batch", "k")),
                Port(name="target", dtype="int64", shape=("batch", "k")),
                Port(name="blocks", dtype="int64", shape=("batch",)),
                Port(name="exact", dtype="bool", shape=("batch",)),
            ),
        ),
    }


def _build(task: Task, model: models.Model, tensors: Mapping[str, Array]) -> Lowered:
    weights = Weights(tensors)
    inputs = {port.name: argument(Tensor(np.dtype(port.dtype), port.shape)) for port in task.inputs}
    results = task.lowering(model, weights, *inputs.values())
    outputs = {port.name: var for port, var in zip(task.outputs, results, strict=True)}
    proto = spox.build({**inputs, **weights.arguments}, outputs)
    return Lowered(task, proto, weights.views)
