"""Tiny calls that came in one turn of the event loop, run there and then in as few runs as can be.

A run has costs of its own, and weights that all of its rows share: sixteen one-row queries take
less than half of the time of sixteen runs.
"""

from collections.abc import Callable, Iterable, Sequence
from time import perf_counter

from service.errors import ServiceError

from .calls import Call, Outputs
from .merging import count_units, joined, key, parted

Outcome = Outputs | ServiceError
Alone = Callable[[Call], Outcome]
Note = Callable[[Sequence[Call], float], None]


def run_together(calls: Sequence[Call], alone: Alone, note: Note) -> list[Outcome]:
    """What becomes of each; `note` is told of every run that several shared, and its seconds."""
    if len(calls) == 1:
        return [alone(calls[0])]
    outcomes: dict[int, Outcome] = {}
    for members in _alike(calls):
        some = [calls[i] for i in members]
        outcomes.update(zip(members, _run(some, alone, note), strict=True))
    return [outcomes[i] for i in range(len(calls))]


def _alike(calls: Sequence[Call]) -> Iterable[list[int]]:
    """The places of calls that can be merged."""
    groups: dict[object, list[int]] = {}
    for i, call in enumerate(calls):
        groups.setdefault(key(call), []).append(i)
    return groups.values()


def _run(calls: Sequence[Call], alone: Alone, note: Note) -> list[Outcome]:
    if len(calls) == 1:
        return [alone(calls[0])]
    started = perf_counter()
    try:
        outputs = calls[0].session.run(joined(calls))
        parts = list(parted(outputs, [count_units(call) for call in calls]))
    except Exception:  # whoever spoilt it spoils only its own
        return [alone(call) for call in calls]
    seconds = perf_counter() - started
    note(calls, seconds)
    return [Outputs(arrays, 0.0, seconds) for arrays in parts]
