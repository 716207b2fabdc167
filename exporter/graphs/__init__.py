"""Graphs: a model's tasks in ONNX, built with spox."""

from .tasks import Lowered, Task, lower, tasks
from .weights import bind

__all__ = ["Lowered", "Task", "bind", "lower", "tasks"]
