"""Parses the query parameters of the score route: the task and its parameters, each given once."""

from urllib.parse import parse_qsl

import msgspec

from hsoftmax.scoring import CallError, TargetShape, Task
from hsoftmax.scoring.task import check_task, graph_for_task
from hsoftmax.service.codecs.json import error_message
from hsoftmax.service.errors import InvalidQuery
from hsoftmax.service.inference.scoring_task import TaskQuery
from hsoftmax.service.repository.loaded_bundle import LoadedBundle

_MAX_PARAMETERS = 100


class ScoreQuery(TaskQuery, frozen=True):
    """Query parameters of the score route: the task and its parameters."""

    task: str = "target_log_prob"


def parse_query(query_string: bytes) -> ScoreQuery:
    """Parse the query string.

    Raises:
        InvalidQuery: a parameter is unknown, given twice, or has an invalid value.
    """
    fields: dict[str, str] = {}
    try:
        pairs = parse_qsl(query_string.decode("latin-1"), True, max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        raise InvalidQuery(f"parameters: expected at most {_MAX_PARAMETERS}, got more") from None
    for name, value in pairs:
        if name in fields:
            raise InvalidQuery(f"{name[:60]}: expected once, got it again")
        fields[name] = value
    try:
        return msgspec.convert(fields, ScoreQuery, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidQuery(_quote_text(error_message(str(error), ScoreQuery), fields)) from None


def expect_answerable(task: Task, loaded: LoadedBundle) -> None:
    """Raise UnknownTask or InvalidQuery if the bundle cannot do the task for any target shape."""
    if task.name == "hidden":  # runs no graph
        return
    shapes: tuple[TargetShape, ...] = ("one", "none") if task.name == "probabilities" else ("one",)
    graphs = [graph_for_task(task, shape) for shape in shapes]
    supported = next((i for i, graph in enumerate(graphs) if graph in loaded.sessions), 0)
    loaded.session(graphs[supported])
    try:
        check_task(task, shapes[supported], loaded.bundle_info)
    except CallError as error:
        raise InvalidQuery(str(error)) from None


def _quote_text(message: str, fields: dict[str, str]) -> str:
    """Quote the value from the URL in the message, as every value there is a string."""
    got = fields.get(message.partition(":")[0], "")
    return message.replace("got a string", f"got {got[:60]!r}")
