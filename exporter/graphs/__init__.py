"""Graphs: a model's tasks in ONNX, built with spox."""

from .tasks import Lowered, Task, lower, tasks
from .tensors import graph_tensors
from .weights import bind

__all__ = ["Lowered", "Task", "bind", "graph_tensors", "lower", "tasks"]
