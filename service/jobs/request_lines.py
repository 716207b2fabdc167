"""Scores lines in the format of OpenAI's batches: each is a request, and has a response.

    {"custom_id": "a", "method": "POST", "url": "/v1/models/words/top_k", "body": {...}}

Bodies are of two kinds, and the first line decides which one the file has. A *query* is the body
that one would send to the route: it is planned and answered as the route does. A *row* is a line
of a stream: rows are scored in batches, and `body` of the response has the fields of the record.
`response_lines` writes the responses. `execution` calls `part_scorer`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec

from hsoftmax.bundle import UTF8_MARK
from hsoftmax.scoring import (
    JobSpec,
    PartScorer,
    RowId,
    ScoredPart,
    ShardPart,
    duplicate_errors,
    score_part,
    tally_sequences,
)
from hsoftmax.scoring.errors import RowError
from hsoftmax.scoring.formats.line_reader import LineReader
from hsoftmax.scoring.formats.ndjson import BLANK, TOO_LONG, valid_id
from hsoftmax.scoring.formats.record_schema import values
from hsoftmax.service.codecs.json import decode, encode
from hsoftmax.service.errors import (
    BundleChanged,
    InvalidQuery,
    Malformed,
    ServiceError,
    TooLarge,
    UnknownVersion,
)
from hsoftmax.service.inference.body_bounds import check_body_shape
from hsoftmax.service.inference.named_inputs import plan_encoder, read_named_inputs_now
from hsoftmax.service.inference.operations import OPERATIONS, Operation, Plan
from hsoftmax.service.inference.overflow import expect_no_overflow
from hsoftmax.service.inference.scoring_calls import build_plan_call
from hsoftmax.service.inference.texts import read_texts_now
from hsoftmax.service.jobs.errors import JobFailure
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.settings import Settings

from .blocking_graph_runner import JOB_OPTIONS, BlockingGraphRunner
from .response_lines import LineFailure, Outcome, scored_part

RequestKind = Literal["", "row", "query"]

BATCH_LINES = 8  # queries that are parsed in one step
SHARD_LINES = 1024  # queries whose responses are lost if the process ends

_MAX_PROBED_LINES = 100
_MAX_VALUES = 2**23  # numbers in the response to one line
_OPERATIONS: Mapping[str, Operation] = {
    name: one for one in OPERATIONS for name in (one.name, *one.aliases)
}


class _Route(msgspec.Struct):
    """The route of a line. Other fields are skipped."""

    method: str = "POST"
    url: str | None = None


class _Request(_Route, kw_only=True):
    """A line with its body."""

    body: msgspec.Raw


class _Probe(msgspec.Struct):
    """The fields of a line that say whether it is a request. Their values are not decoded."""

    body: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()


class _BodyProbe(msgspec.Struct):
    """The field of a body that says which kind it is of."""

    inputs: msgspec.Raw = msgspec.Raw()


_PROBE, _BODY_PROBE = msgspec.json.Decoder(_Probe), msgspec.json.Decoder(_BodyProbe)
_ROUTE, _REQUEST = msgspec.json.Decoder(_Route), msgspec.json.Decoder(_Request)


@dataclass(frozen=True)
class LineContext:
    """The job and the bundle with which lines are answered."""

    batch_id: str
    endpoint: str
    loaded: LoadedBundle
    settings: Settings
    runner: BlockingGraphRunner


def request_kind(path: Path) -> RequestKind:
    """Return the kind of the bodies in a file of lines; "" if its first object is no request."""
    with closing(LineReader([path], headers=0)) as lines:
        first = lines.read(lines.begin(), _MAX_PROBED_LINES)
    for line in [] if first is None else first.content:
        with suppress(Exception):  # the decoder's, of any type: the line is no object
            probe = _PROBE.decode((line or b"").removeprefix(UTF8_MARK))
            body = bytes(probe.body)
            if bytes(probe.input) or not body.startswith(b"{"):
                return ""
            return "query" if bytes(_BODY_PROBE.decode(body).inputs) else "row"
    return ""


def part_scorer(kind: RequestKind, context: LineContext) -> PartScorer:
    """Return the function that answers the lines of a part."""
    if kind == "row":
        return partial(_answer_rows, context=context)
    operation = _OPERATIONS[context.endpoint.rpartition("/")[2]]
    answer = partial(_answer_query, operation, msgspec.json.Decoder(operation.query), context)
    return partial(_answer_queries, answer, context=context)


def _answer_rows(part: ShardPart, spec: JobSpec, context: LineContext) -> ScoredPart:
    elsewhere = _route_errors(part.raw_batch.content, context)
    rows, results = score_part(part, spec, context.runner, elsewhere)
    columns = [values(column) for column in results.columns.values()]
    records = zip(*columns, strict=True) if columns else iter(())
    bodies = (
        encode({**_bundle_fields(context), **dict(zip(results.columns, record, strict=True))})
        for record in records
    )
    failures = {i: LineFailure(one.code, str(one)) for i, one in results.row_errors.items()}
    outcomes = [failures[i] if i in failures else next(bodies) for i in range(len(results))]
    has_tallies = spec.task.name == "perplexity"
    tallies = tally_sequences(rows, results, spec.task.log_base) if has_tallies else {}
    return scored_part(part, rows.ids, outcomes, context.batch_id, tallies)


def _route_errors(lines: Sequence[bytes | None], context: LineContext) -> dict[int, RowError]:
    """Return the errors of lines that are requests to another route; the reader finds others."""
    errors: dict[int, RowError] = {}
    for i, line in enumerate(lines):
        with suppress(Exception):  # the decoder's, of any type: the reader finds its error
            route = _ROUTE.decode((line or b"{}").removeprefix(UTF8_MARK))
            try:
                _expect_route(route, context)
            except InvalidQuery as error:
                errors[i] = RowError("invalid_query", str(error))
    return errors


def _answer_queries(
    answer: Callable[[bytes], bytes], part: ShardPart, spec: JobSpec, context: LineContext
) -> ScoredPart:
    lines = [(line or b"").removeprefix(UTF8_MARK) if line is not None else None
             for line in part.raw_batch.content]  # fmt: skip
    ids = _ids(lines, spec.columns.id)
    repeated: Mapping[int, RowError] = {}
    if spec.duplicates is not None:
        repeated = duplicate_errors(ids, part.first_row, spec.duplicates)
    failures = {i: LineFailure(one.code, str(one)) for i, one in repeated.items()}
    outcomes = [
        failures[i] if i in failures else _outcome(line, answer) for i, line in enumerate(lines)
    ]
    return scored_part(part, ids, outcomes, context.batch_id, {})


def _outcome(line: bytes | None, answer: Callable[[bytes], bytes]) -> Outcome:
    if not line:
        error = BLANK if line is not None else TOO_LONG
        return LineFailure(error.code, str(error))
    try:
        return answer(line)
    except BundleChanged as changed:  # no line of the job can be answered any more
        raise JobFailure("bundle_gone", str(changed), "endpoint") from None
    except ServiceError as refused:
        return LineFailure(refused.code, str(refused))


def _answer_query(
    operation: Operation, decoder: msgspec.json.Decoder[Any], context: LineContext, line: bytes
) -> bytes:
    """Return the body that the route would answer. Raises ServiceError."""
    request = _decode(_REQUEST, line)
    _expect_route(request, context)
    body = bytes(request.body)
    check_body_shape(body, context.loaded, context.settings)
    query = _decode(decoder, body)
    if query.version is not None and str(query.version) != context.loaded.version:
        expected = context.loaded.version
        raise UnknownVersion(
            f"version: expected {expected}, the job's, got {str(query.version)[:60]!r}"
        )
    query = _with_hidden(query, operation, context)
    plan = operation.plan(query, context.loaded, context.settings)
    if plan.values > _MAX_VALUES:
        raise TooLarge(
            f"body: expected an answer of at most {_MAX_VALUES} numbers, got {plan.values}: "
            "write more lines with fewer rows"
        )
    fields: dict[str, object] = dict(_bundle_fields(context))
    for call in plan.calls:
        fields.update(call.finish(_outputs(call, context)))
    return encode(fields)


def _with_hidden(query: Any, operation: Operation, context: LineContext) -> Any:  # noqa: ANN401
    """Return the query with hidden states in place of texts or of inputs by name."""
    inputs = read_named_inputs_now(query, context.loaded, context.settings)
    if inputs is None:
        return read_texts_now(query, context.loaded, context.settings)
    plan = plan_encoder(inputs, context.loaded, context.settings, JOB_OPTIONS, isolated=True)
    outputs = [context.runner.run_encoder(call) for call in plan.calls]
    return msgspec.structs.replace(query, inputs=plan.hidden(outputs))


def _outputs(plan: Plan, context: LineContext) -> list[Any]:
    if not plan.feeds:
        return []
    call = build_plan_call(plan, JOB_OPTIONS, isolated=True)
    outputs = context.runner.run(call, context.endpoint.rpartition("/")[2])
    expect_no_overflow(plan, outputs)
    return outputs


def _decode(decoder: msgspec.json.Decoder[Any], content: bytes) -> Any:  # noqa: ANN401
    try:
        return decode(decoder, content)
    except UnicodeDecodeError:
        raise Malformed("body: expected JSON in UTF-8, got other bytes") from None


def _expect_route(route: _Route, context: LineContext) -> None:
    """Raise InvalidQuery if a line is a request to another route than the job's."""
    if route.method != "POST":
        raise InvalidQuery(f"method: expected POST, got {route.method[:60]!r}")
    if route.url is not None and _without_alias(route.url) != _without_alias(context.endpoint):
        raise InvalidQuery(
            f"url: expected {context.endpoint}, the job's endpoint, got {route.url[:100]!r}"
        )


def _without_alias(path: str) -> str:
    """Return the path of a route with the name of its operation in place of an alias."""
    model, _, name = path.rpartition("/")
    return f"{model}/{_OPERATIONS[name].name}" if name in _OPERATIONS else path


def _bundle_fields(context: LineContext) -> dict[str, str]:
    return {"model": context.loaded.name, "version": context.loaded.version}


def _ids(lines: Sequence[bytes | None], name: str) -> list[RowId]:
    """Return the id of each line, or None if it cannot be read. Other fields are not decoded."""
    identified = msgspec.defstruct("Identified", [("id", RowId, None)], rename={"id": name})
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(identified)
    ids: list[RowId] = [None] * len(lines)
    for i, line in enumerate(lines):
        with suppress(Exception):  # the decoder's, of any type
            ids[i] = valid_id(decoder.decode(line or b"").id)
    return ids
