"""Writes the lines of OpenAI's batches that hold a response: one for each request, or its error.

    {"id": "...", "custom_id": "a", "response": {"status_code": 200, "request_id": "...",
     "body": {...}}, "error": null}

A line that is no request has no response, but an error. `request_lines` calls this module.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from hsoftmax.scoring import RowId, ScoredPart, ShardPart
from hsoftmax.scoring.failures import Failures, add_failures
from hsoftmax.service.errors import status_of_code
from hsoftmax.service.http.openai_errors import error_object

# Errors of lines that are no request, so that there is no response to them.
_NO_RESPONSE = frozenset({"invalid_json", "duplicate_id"})


@dataclass(frozen=True, slots=True)
class LineFailure:
    """The error of one line."""

    code: str
    message: str


Outcome = bytes | LineFailure  # the body of a response, or an error


def scored_part(
    part: ShardPart,
    ids: Sequence[RowId],
    outcomes: Sequence[Outcome],
    batch_id: str,
    tallies: dict[RowId, Any],
) -> ScoredPart:
    """Return the lines of the output and of the error file. Ids are the same in every run."""
    written: list[bytes] = []
    errors: list[str] = []
    for i, (id, outcome) in enumerate(zip(ids, outcomes, strict=True)):
        request_id = f"{batch_id}-{part.first_row + i}"
        if isinstance(outcome, LineFailure):
            line = part.raw_batch.start.line + i
            errors.append(_error_line(outcome, request_id, id, line).decode())
        else:
            response = _response(200, request_id, orjson.Fragment(outcome))
            written.append(_line(request_id, id, response=response, error=None))
    failures = add_failures(
        {outcome.code: Failures(1, outcome.message)}
        for outcome in outcomes
        if isinstance(outcome, LineFailure)
    )
    return ScoredPart(part, b"".join(written), len(errors), tallies, errors, failures)


def _error_line(error: LineFailure, request_id: str, id: RowId, line: int) -> bytes:
    status = status_of_code(error.code)
    if error.code in _NO_RESPONSE:
        told = {"code": error.code, "message": error.message}
        return _line(request_id, id, line=line, response=None, error=told)
    body = {"error": error_object(error.message, error.code, status)}
    response = _response(status, request_id, body)
    return _line(request_id, id, line=line, response=response, error=None)


def _response(status: int, request_id: str, body: object) -> dict[str, object]:
    return {"status_code": status, "request_id": request_id, "body": body}


def _line(request_id: str, custom_id: RowId, **fields: object) -> bytes:
    id = "batch_req_" + request_id.removeprefix("batch_")
    record = {"id": id, "custom_id": custom_id, **fields}
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
