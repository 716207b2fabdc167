"""What a question is: a form of query, and how it becomes one run of a graph and an answer.

A route reads a body, finds the bundle, and asks the question for a plan; running the plan is the
engine's affair, so that it may be batched, queued or refused there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from hsoftmax.models.arrays import Array
from hsoftmax.runtime.sessions import Feeds, Session
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.settings import Settings

Fields = dict[str, object]

Rows = Annotated[
    list[list[float]],
    Meta(
        description="one list of hidden_size finite numbers for each row",
        extra_json_schema={"minItems": 1},  # not min_length: its message is not ours
    ),
]
Version = Annotated[
    int | str | None, Meta(description="a version that is served; the highest by default")
]
Log = Annotated[bool, Meta(description="answer log-probabilities instead of probabilities")]


class Query(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What every query has."""

    inputs: Rows
    version: Version = None
    log: Log = False


class OperationResponse(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What every answer has."""

    model: str
    version: str


@dataclass(frozen=True, slots=True)
class MatrixResult:
    """An answer that is `width` log-probabilities for each row, whatever the other rows are.

    Attributes:
        field: the answer's field for them
        log: whether they are wanted as they are, or as probabilities
    """

    field: str
    log: bool
    width: int


class Plan(msgspec.Struct, frozen=True):
    """One run of a task's graph.

    Attributes:
        session: the task's graph
        feeds: the graph's inputs, all checked; None if there is nothing to compute
        rows: rows of `hidden`
        work: about how many multiply-adds it takes
        values: how many numbers the answer holds
        finish: the answer's fields from the graph's outputs
        matrix: what a slice of the rows gives, where the answer may be made in slices
        also: another run on the same rows, whose fields join the answer
        apart: shares no run with others, so that its answer is the same to the bit, always
    """

    session: Session
    feeds: Feeds | None
    rows: int
    work: int
    values: int
    finish: Callable[[list[Array]], Fields]
    matrix: MatrixResult | None = None
    also: "Plan | None" = None
    apart: bool = False

    @property
    def runs(self) -> "tuple[Plan, ...]":
        """This run and those that join it."""
        return (self,) if self.also is None else (self, *self.also.runs)


@dataclass(frozen=True)
class Operation:
    """One route: its name in the path, its forms, and its planner.

    Attributes:
        task: the task that a JSON body is for, as far as a glance tells; under overload, what is
            refused anyway is refused before it is read
    """

    name: str
    summary: str
    query: type[Any]
    answer: type[Any]
    example: Mapping[str, object]
    plan: Callable[[Any, LoadedBundle, Settings], Plan]
    task: Callable[[bytes], str]
