"""What a stream's URL asks: the task and its parameters, each of its type and given once."""

from urllib.parse import parse_qsl

import msgspec

from hsoftmax.scoring import CallError, TargetShape, Task
from hsoftmax.scoring.task import check_task, graph_for_task
from hsoftmax.service.codecs.json import error_message
from hsoftmax.service.errors import InvalidQuery
from hsoftmax.service.inference.scoring_task import TaskQuery
from hsoftmax.service.repository.loaded_bundle import LoadedBundle

_MOST = 100  # parameters


class ScoreQuery(TaskQuery, frozen=True):
    """The task, and its parameters."""

    task: str = "target_log_prob"


def query_of(query_string: bytes) -> ScoreQuery:
    """The parameters.

    Raises:
        InvalidQuery: one that is not known, given twice, or no such value.
    """
    fields: dict[str, str] = {}
    try:
        given = parse_qsl(query_string.decode("latin-1"), True, max_num_fields=_MOST)
    except ValueError:
        raise InvalidQuery(f"parameters: expected at most {_MOST}, got more") from None
    for name, value in given:
        if name in fields:
            raise InvalidQuery(f"{name[:60]}: expected once, got it again")
        fields[name] = value
    try:
        return msgspec.convert(fields, ScoreQuery, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidQuery(_with_text(error_message(str(error), ScoreQuery), fields)) from None


def expect_answerable(task: Task, served: LoadedBundle) -> None:
    """Raise UnknownTask, or InvalidQuery, unless rows of some form can be asked this."""
    forms: tuple[TargetShape, ...] = ("one", "none") if task.name == "probabilities" else ("one",)
    graphs = [graph_for_task(task, form) for form in forms]
    found = next((i for i, graph in enumerate(graphs) if graph in served.sessions), 0)
    served.session(graphs[found])
    try:
        check_task(task, forms[found], served.bundle_info)
    except CallError as error:
        raise InvalidQuery(str(error)) from None


def _with_text(said: str, fields: dict[str, str]) -> str:
    """What was got as it stands in the URL, where every value is text."""
    got = fields.get(said.partition(":")[0], "")
    return said.replace("got a string", f"got {got[:60]!r}")
