"""Lowers the tasks of a model into ONNX graphs, which are built with spox.

Docstrings of graph functions give shapes as `input [shape] -> output [shape]`, with B hidden rows
of H values, N targets, C clusters, P pairs of a hidden row and a target, S samples per row, K rows
of a block, and m, n, d, M, W explained where they occur.
"""

from .auxiliary_tensors import graph_tensors
from .tasks import LoweredGraph, TaskSpec, lower, task_specs
from .weights import bind_weights

__all__ = ["LoweredGraph", "TaskSpec", "bind_weights", "graph_tensors", "lower", "task_specs"]
