"""Graphs: a model's tasks in ONNX, built with spox."""

from .auxiliary_tensors import graph_tensors
from .tasks import Lowered, Task, lower, tasks
from .weights import bind

__all__ = ["Lowered", "Task", "bind", "graph_tensors", "lower", "tasks"]
