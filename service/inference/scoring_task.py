"""What is asked of every row of a stream or a file, as queries name it: a `scoring.Task`."""

from typing import get_args

import msgspec

from hsoftmax.scoring import TASK_NAMES, OovPolicy, Task, TaskName
from hsoftmax.service.errors import InvalidQuery

_OOVS: tuple[OovPolicy, ...] = get_args(OovPolicy)


class TaskQuery(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The task's parameters; those that a task has no use for say nothing to it."""

    k: int = 10
    max_blocks: int = 0
    num_samples: int = 1
    seed: int = 0
    oov: str = "error"
    log_base: float | None = None
    version: int | str | None = None


def known_name(name: str) -> TaskName:
    """The task's name. Raises InvalidQuery if there is none such."""
    for known in TASK_NAMES:
        if name == known:
            return known
    raise InvalidQuery(f"task: expected one of {', '.join(TASK_NAMES)}, got {name[:60]!r}")


def task_of(name: TaskName, query: TaskQuery) -> Task:
    """The task with the query's parameters, of which a bundle may yet set bounds.

    Raises:
        InvalidQuery: no such `oov`.
    """
    return Task(
        name=name,
        k=query.k,
        max_blocks=query.max_blocks,
        num_samples=query.num_samples,
        seed=query.seed,
        oov=_known_oov(query.oov),
        log_base=query.log_base,
    )


def _known_oov(oov: str) -> OovPolicy:
    for known in _OOVS:
        if oov == known:
            return known
    raise InvalidQuery(f"oov: expected {' or '.join(_OOVS)}, got {oov[:60]!r}")
