"""The rows that `score` of a model reads, over HTTP and in process, and the tasks that it knows."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import orjson

from hsoftmax.models import QueryError
from hsoftmax.scoring import Task

Row = Mapping[str, Any]
Record = dict[str, Any]

ROWS_AT_ONCE = 512

# Of other tasks a record depends on the number of its row, or there are records of many rows.
_TASKS = ("target_log_prob", "probabilities", "top_k", "log_probs", "hidden")


def expect_task(task: str) -> None:
    if task not in _TASKS:
        raise QueryError(
            f"task: expected one of {', '.join(_TASKS)}, got {task!r}: a job scores with any task"
        )


def expect_parameters(parameters: Iterable[str]) -> None:
    """Raises QueryError if a name is no parameter of a task."""
    known = [field.name for field in fields(Task) if field.name != "name"]
    for name in parameters:
        if name not in known:
            raise QueryError(f"parameters: expected some of {', '.join(known)}, got {name!r}")


def row_lines(rows: Sequence[Row]) -> list[bytes]:
    """Returns each row as a line of JSON; NumPy arrays become lists."""
    return [_line(row) for row in rows]


def _line(row: Row) -> bytes:
    try:
        return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:  # an integer of more than 64 bits, or many lists in each other
        return json.dumps(row, ensure_ascii=False).encode()
