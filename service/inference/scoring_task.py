"""Parses the scoring task of a stream or a job from its query: a `scoring.Task`."""

from typing import get_args

import msgspec

from hsoftmax.scoring import TASK_NAMES, OovPolicy, Task, TaskName
from hsoftmax.service.errors import InvalidQuery
from hsoftmax.service.suggestions import did_you_mean

_OOV_POLICIES: tuple[OovPolicy, ...] = get_args(OovPolicy)


class TaskQuery(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The parameters of all tasks; a task ignores those of other tasks."""

    k: int | msgspec.UnsetType = msgspec.UNSET
    max_blocks: int = 0
    threshold: float | None = None
    num_samples: int = 1
    seed: int = 0
    oov: str = "error"
    log_base: float | None = None
    version: int | str | None = None


def parse_task_name(name: str) -> TaskName:
    """The name as a TaskName. Raises InvalidQuery if there is no such task."""
    for known in TASK_NAMES:
        if name == known:
            return known
    hint = did_you_mean(name, TASK_NAMES)
    raise InvalidQuery(f"task: expected one of {', '.join(TASK_NAMES)}, got {name[:60]!r}{hint}")


def build_task(name: TaskName, query: TaskQuery) -> Task:
    """The task with the query's parameters; the bundle's limits are not checked here.

    Raises:
        InvalidQuery: there is no such `oov` policy.
    """
    return Task(
        name=name,
        k=None if query.k is msgspec.UNSET else query.k,
        max_blocks=query.max_blocks,
        threshold=query.threshold,
        num_samples=query.num_samples,
        seed=query.seed,
        oov=_parse_oov(query.oov),
        log_base=query.log_base,
    )


def _parse_oov(oov: str) -> OovPolicy:
    for known in _OOV_POLICIES:
        if oov == known:
            return known
    raise InvalidQuery(f"oov: expected {' or '.join(_OOV_POLICIES)}, got {oov[:60]!r}")
