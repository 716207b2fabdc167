"""An inference request as tensors, and its result. REST and gRPC convert their messages to these.

`priority` and `timeout` are Triton's request parameters: 0 and 1 are the highest priority, larger
numbers are lower ones, and the timeout is in microseconds.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec

from hsoftmax.service.engine import Priority
from hsoftmax.service.errors import InvalidQuery
from hsoftmax.service.http.request_options import RequestOptions

from .tensor import Tensor

ParameterValue = bool | int | float | str

MAX_OUTPUTS = 64
MAX_TIMEOUT_US = 3_600_000_000
# Parameters of the protocol that other models use, and of clients that send them to every model.
IGNORED_PARAMETERS = frozenset(
    {"sequence_id", "sequence_start", "sequence_end", "headers", "binary_data_output",
     "binary_data", "content_type"}
)  # fmt: skip
_IGNORED_PREFIX = "triton_"
OPTION_PARAMETERS = ("priority", "timeout")


class RequestedOutput(msgspec.Struct, frozen=True):
    """An output that a request names.

    Attributes:
        classification: the number of classes to return in place of the numbers; 0 for the numbers
    """

    name: str
    classification: int = 0


class InferRequest(msgspec.Struct, frozen=True):
    """A request over HTTP or gRPC.

    Attributes:
        input_names: the names of the tensors, each once
        read_inputs: reads and checks the tensors, by name; an overloaded service does not call it
        outputs: the outputs to return; the default ones if there are none
        version: a number or an alias; None is the one that the rollout chooses
        id: the client's id of the request, which the result repeats
    """

    model: str
    input_names: tuple[str, ...]
    read_inputs: Callable[[], Awaitable[Mapping[str, Tensor]]]
    outputs: tuple[RequestedOutput, ...] = ()
    parameters: Mapping[str, ParameterValue] = {}
    version: str | None = None
    id: str = ""


class InferResult(msgspec.Struct, frozen=True):
    """The result of a request: the outputs in the requested order."""

    model: str
    version: str
    id: str
    outputs: tuple[Tensor, ...]
    parameters: Mapping[str, ParameterValue] = {}


def distinct_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the inputs. Raises InvalidQuery for one that is given twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidQuery(f"inputs: expected {name[:60]!r} once, got it twice")
        seen.add(name)
    return tuple(names)


def expect_distinct(outputs: Iterable[RequestedOutput]) -> None:
    """Raise InvalidQuery for an output that is requested twice, or too many of them."""
    names = [output.name for output in outputs]
    if len(names) > MAX_OUTPUTS:
        raise InvalidQuery(f"outputs: expected at most {MAX_OUTPUTS}, got {len(names)}")
    for name in names:
        if names.count(name) > 1:
            raise InvalidQuery(f"outputs: expected {name[:60]!r} once, got it twice")


def is_ignored(parameter: str) -> bool:
    """True for a parameter that is meant for other models."""
    return parameter in IGNORED_PARAMETERS or parameter.startswith(_IGNORED_PREFIX)


def request_options(
    parameters: Mapping[str, ParameterValue], default: RequestOptions
) -> RequestOptions:
    """Return the options of a request; `default` applies where a parameter is missing or 0.

    Raises:
        InvalidQuery: `priority` or `timeout` is no integer, or out of range.
    """
    priority = _integer(parameters, "priority", 2**64 - 1)
    timeout = _integer(parameters, "timeout", MAX_TIMEOUT_US)
    if not priority and not timeout:
        return default
    return RequestOptions(
        timeout / 1e6 if timeout else default.timeout,
        (Priority.INTERACTIVE if priority == 1 else Priority.BATCH) if priority
        else default.priority,
    )  # fmt: skip


def _integer(parameters: Mapping[str, ParameterValue], name: str, largest: int) -> int:
    value = parameters.get(name, 0)
    if isinstance(value, str) and value.isdecimal() and len(value) <= 20:
        value = int(value)  # clients that have only parameters of text
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= largest:
        raise InvalidQuery(f"parameters.{name}: expected an integer from 0 to {largest}")
    return value
