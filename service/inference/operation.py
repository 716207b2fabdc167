"""The base types of an operation: its query, its plan of graph calls, and its response.

The endpoint of an operation decodes a body, finds the bundle, and calls the operation's planner.
The engine runs the plan, so that its calls can be batched, queued or rejected there.
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

from .tensors.declaration import OperationTensors

ResponseFields = dict[str, object]

Rows = Annotated[
    list[list[float | str] | str],
    Meta(
        description="for each row a list of hidden_size finite numbers; where the bundle takes "
        "text, a text or a list of words",
        extra_json_schema={"minItems": 1},  # min_length would replace our error message
    ),
]
_AnyRows = Annotated[list[Any], Meta(extra_json_schema={"items": {}})]  # client generators need it
NamedRows = Annotated[
    dict[str, _AnyRows],
    Meta(
        description="where the bundle has an encoder, the rows of each of its inputs by name",
        extra_json_schema={"minProperties": 1},
    ),
]
VERSION_DESCRIPTION = (
    "a version or an alias; by default the one that the rollout chooses, or the highest"
)
Version = Annotated[int | str | None, Meta(description=VERSION_DESCRIPTION)]
LogFlag = Annotated[bool, Meta(description="return log-probabilities instead of probabilities")]


class Query(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The fields of every query with input rows."""

    inputs: Rows | NamedRows
    version: Version = None
    log: LogFlag = False


class OperationResponse(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The fields of every response."""

    model: str
    version: str


@dataclass(frozen=True, slots=True)
class MatrixResult:
    """A response of `width` log-probabilities a row, so that its rows can be computed in slices.

    Attributes:
        field: the response field of the matrix
        log: True for log-probabilities, False for probabilities
        max_log_prob: the largest log-probability: 0, or infinity for scores beyond one
    """

    field: str
    log: bool
    width: int
    max_log_prob: float = 0.0


class Plan(msgspec.Struct, frozen=True):
    """One call of a task's graph, and how its outputs become response fields.

    Attributes:
        session: the session of the task's graph
        feeds: the graph's inputs, validated; None if there is nothing to compute
        rows: rows of `hidden`
        cost: estimated multiply-adds
        values: numbers in the response
        finish: converts the graph's outputs to response fields
        matrix: describes the result of a slice of rows, if the response can be made in slices
        extra: another call on the same rows, whose fields join the response
        isolated: never batched with other calls, so the result is always the same to the bit
        chosen: values that the query left to the service, such as a seed
    """

    session: Session
    feeds: Feeds | None
    rows: int
    cost: int
    values: int
    finish: Callable[[list[Array]], ResponseFields]
    matrix: MatrixResult | None = None
    extra: "Plan | None" = None
    isolated: bool = False
    chosen: Mapping[str, int] = {}

    @property
    def calls(self) -> "tuple[Plan, ...]":
        """This call and its extra calls."""
        return (self,) if self.extra is None else (self, *self.extra.calls)


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation on a bundle: POST /v1/models/{name}/<operation>. It is equal to itself alone.

    Attributes:
        name: the last part of the route
        aliases: deprecated names, which are routes to the same endpoint
        query: msgspec type of the JSON query
        response: msgspec type of the JSON response
        plan: builds the plan of a query for a bundle
        guess_task: guesses the task from an undecoded JSON body, so that an overloaded service
            rejects a request before it decodes the body
        isolated: an encoder's calls for it are never batched with those of other requests
        tensors: its tensors in the Open Inference Protocol
        prepare: what its first query of a bundle needs and takes long; it runs in a thread
        has_matrix: False if its response is JSON alone
    """

    name: str
    summary: str
    query: type[Any]
    response: type[Any]
    example: Mapping[str, object]
    plan: Callable[[Any, LoadedBundle, Settings], Plan]
    guess_task: Callable[[bytes], str]
    aliases: tuple[str, ...] = ()
    isolated: bool = False
    tensors: OperationTensors | None = None
    prepare: Callable[[LoadedBundle], object] | None = None
    has_matrix: bool = True
