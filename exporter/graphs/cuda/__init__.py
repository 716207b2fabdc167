"""Graphs for CUDA: they have no loop, and their weights are inputs. docs/decisions/0041 says why.

A task has one graph, which the host runs as often as its plan needs, in `hsoftmax.runtime.cuda`.
Graphs do not have the inputs of the task, but those of a run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx
import spox

from hsoftmax import models
from hsoftmax.exporter.graphs.shorten_names import shorten_names

from . import binary_tree, block_dot, blocks, top_k
from .blocks import Vars

SUFFIX = ".cuda.onnx"

_Build = Callable[[], tuple[Vars, Vars]]


@dataclass(frozen=True)
class CudaGraphs:
    """The graphs of a model's tasks for CUDA.

    Attributes:
        files: the graphs by file name
        tasks: the file name of each task that has a graph of its own
    """

    files: Mapping[str, onnx.ModelProto]
    tasks: Mapping[str, str]


def cuda_graphs(model: models.Model) -> CudaGraphs:
    """Build the graphs of all tasks of the model that have one for CUDA."""
    builders, tasks = _GRAPHS_BY_FAMILY[type(model)](model)
    return CudaGraphs(
        {name + SUFFIX: _build(build) for name, build in builders.items()},
        {task: name + SUFFIX for task, name in tasks.items()},
    )


def _hierarchical_softmax(
    model: models.HierarchicalSoftmax,
) -> tuple[dict[str, _Build], dict[str, str]]:
    any_order = model.target_rows is not None
    builders, tasks = _block_graphs(any_order=any_order)
    return {"blocks": blocks.gather_blocks, **builders}, tasks


def _adaptive_softmax(
    model: models.AdaptiveSoftmax,
) -> tuple[dict[str, _Build], dict[str, str]]:
    builders, tasks = _block_graphs(any_order=False)
    return {"project": blocks.project, **builders}, tasks


def _block_graphs(*, any_order: bool) -> tuple[dict[str, _Build], dict[str, str]]:
    builders: dict[str, _Build] = {
        "target_log_prob": blocks.target_log_prob,
        "log_probs": blocks.log_probs,
        "sample": blocks.sample,
        "top_k": lambda: top_k.top_k(any_order=any_order),
    }
    return builders, {**{name: name for name in builders}, "cluster_log_probs": "log_probs"}


def _huffman_softmax(model: models.HuffmanSoftmax) -> tuple[dict[str, _Build], dict[str, str]]:
    """Return the graphs of a tree; one of a single target has no node, and needs none."""
    if model.num_targets == 1:
        return {}, {}
    builders: dict[str, _Build] = {
        "target_log_prob": lambda: binary_tree.target_log_prob(model),
        "log_probs": lambda: binary_tree.log_probs(model),
        "sample": lambda: binary_tree.sample(model),
    }
    return builders, {name: name for name in builders}


def _sparse_block_dot(model: models.SparseBlockDot) -> tuple[dict[str, _Build], dict[str, str]]:
    builders: dict[str, _Build] = {
        "blocks": blocks.gather_blocks,
        "block_dot": lambda: block_dot.block_dot(model),
    }
    return builders, {"block_dot": "block_dot"}


_GRAPHS_BY_FAMILY: Mapping[type, Callable[..., tuple[dict[str, _Build], dict[str, str]]]] = {
    models.HierarchicalSoftmax: _hierarchical_softmax,
    models.AdaptiveSoftmax: _adaptive_softmax,
    models.HuffmanSoftmax: _huffman_softmax,
    models.SparseBlockDot: _sparse_block_dot,
}


def _build(build: _Build) -> onnx.ModelProto:
    inputs, outputs = build()
    proto = spox.build(inputs, outputs)
    shorten_names(proto)
    return proto
