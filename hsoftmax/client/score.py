"""Scores rows through the service's streams, one stream for some hundred rows.

An HTTP client sends a whole body before it reads the answer, so a stream of any length in one
request would have to wait on the disk of the server. Here each request is a stream that ends: its
summary is checked, and the memory of both sides is bounded.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

import orjson

from hsoftmax.stream_rows import Record, Row, expect_parameters, expect_task, row_lines

from .call import NDJSON, Call, Request, Response
from .calls import ModelAddress
from .errors import ClientError


def score_calls(
    model: ModelAddress,
    rows: Iterable[Row],
    task: str,
    rows_at_once: int,
    parameters: Mapping[str, object],
    digest: str = "",
) -> Iterator[Call[list[Record]]]:
    """Yields the calls that score the rows, in order; `digest` is of the bundle that must answer.

    Raises:
        QueryError: the task is one whose records need all rows in one stream, or a parameter is
            unknown.
    """
    expect_task(task)
    expect_parameters(parameters)
    params = [("task", task)]
    params += [(name, str(value)) for name, value in parameters.items() if value is not None]
    source, first_row = iter(rows), 0
    while some := list(islice(source, rows_at_once)):
        request = _request(model, some, params, digest)
        yield Call(request, partial(_read, first_row=first_row))
        first_row += len(some)


def _request(
    model: ModelAddress, rows: Sequence[Row], params: Sequence[tuple[str, str]], digest: str
) -> Request:
    content = b"".join(line + b"\n" for line in row_lines(rows))
    headers = {"content-type": NDJSON, "accept": NDJSON}
    path = f"{model.path}/score"
    return Request("POST", path, (*params, *model.params), headers, content, digest)


def _read(response: Response, *, first_row: int) -> list[Record]:
    """Returns the records. Raises ClientError unless the stream is whole."""
    *lines, last = response.content.splitlines(keepends=True)
    summary = json.loads(last).get("summary")
    if summary is None:
        raise ClientError(f"score: expected a summary at the end, got {last[:200]!r}")
    if summary["sha256"] != hashlib.sha256(b"".join(lines)).hexdigest():
        raise ClientError("score: expected the records that the summary has a hash of, got others")
    records = [orjson.loads(line) for line in lines]
    for record in records:
        if "line" in record:
            record["line"] += first_row
    return records
