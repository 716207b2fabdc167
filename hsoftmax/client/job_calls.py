"""The calls of jobs: upload a file, score its rows on the server, and download the records."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import orjson

from .call import JSON, Call, Request, Response, get, model_path

_ENDED = frozenset({"completed", "failed", "cancelled", "expired"})
_MIN_INTERVAL_S, _MAX_INTERVAL_S = 0.2, 5.0


@dataclass(frozen=True)
class Job:
    """The state of a job when it was asked for.

    Attributes:
        status: validating, in_progress, finalizing, completed, failed, cancelling, cancelled or
            expired
        rows, scored, failed: numbers of rows; those counted so far while the job runs
        progress: percentage of the rows that are finished
        output_file_id, error_file_id: files with the records, None while there are none
        errors: the reasons why the job failed, each one sentence
        summary: totals over the finished rows
    """

    id: str
    status: str
    model: str
    version: str
    task: str
    rows: int
    scored: int
    failed: int
    progress: float
    output_file_id: str | None
    error_file_id: str | None
    errors: tuple[str, ...]
    summary: Mapping[str, Any] | None

    @property
    def ended(self) -> bool:
        return self.status in _ENDED


def upload(path: Path) -> Call[str]:
    """Returns the call that uploads a file and gives its id.

    It is not repeated after a broken connection, as the service may have stored the file.
    """
    request = Request("POST", "/v1/files", upload=path, repeatable=False)
    return Call(request, lambda r: str(r.json()["id"]))


def create(
    file_id: str | None, model: str, task: str, version: str | None, fields: Mapping[str, object]
) -> Call[Job]:
    """Returns the call that starts a job. A key makes sure that a repeated call starts no other."""
    given = {"input_file_id": file_id, "version": version, "completion_window": "24h", **fields}
    body: dict[str, object] = {"endpoint": f"{model_path(model)}/score", "task": task}
    body |= {name: value for name, value in given.items() if value is not None}
    headers = {"content-type": JSON, "idempotency-key": uuid4().hex}
    return Call(Request("POST", "/v1/batches", (), headers, orjson.dumps(body)), _read_job)


def find(job_id: str) -> Call[Job]:
    return Call(get(_path(job_id)), _read_job)


def cancel(job_id: str) -> Call[Job]:
    return Call(Request("POST", f"{_path(job_id)}/cancel"), _read_job)


def download(file_id: str, path: Path) -> Call[Path]:
    """Returns the call that writes the content of a file to `path`, once it is whole."""
    request = Request("GET", f"/v1/files/{quote(file_id, safe='')}/content", save_to=path)
    return Call(request, lambda r: path)


def interval_s(checks: int) -> float:
    """Returns the seconds from one look at a job to the next, after so many looks."""
    return min(_MIN_INTERVAL_S * 1.5**checks, _MAX_INTERVAL_S)


def _path(job_id: str) -> str:
    return f"/v1/batches/{quote(job_id, safe='')}"


def _read_job(response: Response) -> Job:
    job = response.json()
    counts, errors = job["request_counts"], job["errors"] or {"data": []}
    return Job(
        id=job["id"],
        status=job["status"],
        model=job["model"],
        version=job["version"],
        task=job["task"],
        rows=counts["total"],
        scored=counts["completed"],
        failed=counts["failed"],
        progress=job["progress"],
        output_file_id=job["output_file_id"],
        error_file_id=job["error_file_id"],
        errors=tuple(error["message"] for error in errors["data"]),
        summary=job["summary"],
    )
