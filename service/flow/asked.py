"""What a stream's URL asks: the task and its parameters, each of its type and known."""

from urllib.parse import parse_qsl

import msgspec

from scoring import NAMES, CallError, Form, Task
from scoring.task import check, graph_of
from service.errors import InvalidQuery
from service.served import Served
from service.wire import sentence

_MOST = 100  # parameters


class ScoreQuery(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The parameters; those that a task has no use for say nothing to it."""

    task: str = "target_log_prob"
    k: int = 10
    max_blocks: int = 0
    num_samples: int = 1
    seed: int = 0
    oov: str = "error"
    log_base: float | None = None
    version: int | str | None = None


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
        query = msgspec.convert(fields, ScoreQuery, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidQuery(_with_text(sentence(str(error), ScoreQuery), fields)) from None
    _expect("task", query.task, NAMES)
    _expect("oov", query.oov, ("error", "exclude"))
    return query


def task_of(query: ScoreQuery) -> Task:
    """The task that it asks for."""
    return Task(
        name=query.task,  # type: ignore[arg-type]  # checked by `query_of`
        k=query.k,
        max_blocks=query.max_blocks,
        num_samples=query.num_samples,
        seed=query.seed,
        oov=query.oov,  # type: ignore[arg-type]
        log_base=query.log_base,
    )


def expect_answerable(task: Task, served: Served) -> None:
    """Raise UnknownTask, or InvalidQuery, unless rows of some form can be asked this."""
    forms: tuple[Form, ...] = ("one", "none") if task.name == "probabilities" else ("one",)
    graphs = [graph_of(task, form) for form in forms]
    found = next((i for i, graph in enumerate(graphs) if graph in served.sessions), 0)
    served.session(graphs[found])
    try:
        check(task, forms[found], served.facts)
    except CallError as error:
        raise InvalidQuery(str(error)) from None


def _with_text(said: str, fields: dict[str, str]) -> str:
    """What was got as it stands in the URL, where every value is text."""
    got = fields.get(said.partition(":")[0], "")
    return said.replace("got a string", f"got {got[:60]!r}")


def _expect(name: str, got: str, known: tuple[str, ...]) -> None:
    if got not in known:
        raise InvalidQuery(f"{name}: expected one of {', '.join(known)}, got {got[:60]!r}")
