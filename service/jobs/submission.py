"""Builds a job from the body of POST /v1/batches, and rejects a query that cannot succeed.

The route for batches calls it. Every error that is visible before the rows are read is raised here.
"""

import hashlib
import json
import re
import secrets
import time
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from hsoftmax.scoring import (
    OUTPUT_EXTENSIONS,
    Task,
    TaskName,
    output_extension,
)
from hsoftmax.service.errors import InvalidQuery
from hsoftmax.service.inference.scoring_task import TaskQuery, build_task, parse_task_name
from hsoftmax.service.logging import Log
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.repository.repository import Repository
from hsoftmax.service.settings import Settings

from .batch_store import StoredJob
from .database import Database
from .expires_after import ExpiresAfter, expiry_seconds
from .file_store import expect_room, find_file
from .input_files import input_files
from .input_object import find_input_object
from .input_schema import with_input_schema
from .job_urls import expect_known_format, parse_job_url
from .schemas import BatchObject
from .state_dir import StateDir
from .stored_spec import StoredJobSpec, bundle_info_of

_ENDPOINT = re.compile(r"/v1/models/([^/]+)/(score|probabilities|top_k|topk)")
_TASK_OF_ROUTE: dict[str, TaskName] = {
    "probabilities": "probabilities",
    "top_k": "top_k",
    "topk": "top_k",  # the deprecated alias of the route
}
_WINDOW = re.compile(r"([1-9][0-9]{0,8})([smhd])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_MAX_WINDOW_S = 30 * 86_400
_MAX_METADATA_ITEMS, _MAX_NAME_CHARS, _MAX_VALUE_CHARS = 16, 64, 512


class BatchQuery(TaskQuery, frozen=True):
    """JSON body of POST /v1/batches.

    The fields after `output_expires_after` are not part of OpenAI's API.
    """

    endpoint: str
    completion_window: str = "24h"
    input_file_id: str | None = None
    metadata: dict[str, str] | None = None
    output_expires_after: ExpiresAfter | None = None
    input_path: str | None = None
    input_url: str | None = None
    output_url: str | None = None
    task: str | None = None
    columns: str | list[str] = msgspec.field(default_factory=list)
    labels: bool = False
    output_format: str | None = None

    def digest(self) -> str:
        """Return a SHA-256 that does not depend on the order of fields or on white space."""
        fields = msgspec.to_builtins(self)
        for name in ("output_expires_after", "threshold", "input_url", "output_url"):
            if fields[name] is None:  # as older versions hashed it
                del fields[name]
        plain = json.dumps(fields, sort_keys=True)
        return hashlib.sha256(plain.encode()).hexdigest()


@dataclass(frozen=True)
class SubmissionContext:
    """The services and settings against which a query is checked, and the job's owner."""

    state_dir: StateDir
    database: Database
    repository: Repository
    settings: Settings
    log: Log
    owner: str | None = None


def build_job(query: BatchQuery, context: SubmissionContext) -> StoredJob:
    """Build the job without storing it. It opens the input, but does not read all of its rows.

    An input in a store is not opened yet: the job downloads and checks it.

    Raises:
        UnknownBundle, UnknownVersion, UnknownFile: the service does not have it.
        InvalidQuery, UnsupportedMediaType, Forbidden: the job is impossible; the message says why.
        TooLarge, StorageFull: an input in a store is too large.
        StoreDown: the store of the input does not answer.
    """
    window, metadata = _parse_window(query.completion_window), _check_metadata(query.metadata)
    name, task = _parse_endpoint(query)
    version = None if query.version is None else str(query.version)
    loaded = context.repository.find(name, version)
    spec = _stored_spec(query, context, loaded, task)
    now = int(time.time())
    batch = BatchObject(
        id=f"batch_{secrets.token_hex(12)}",
        endpoint=query.endpoint,
        model=loaded.name,
        version=loaded.version,
        digest=spec.digest,
        task=task.name,
        input_file_id=query.input_file_id,
        input_path=query.input_path,
        input_url=spec.input_object and spec.input_object.url,
        output_url=spec.output_url,
        completion_window=query.completion_window,
        created_at=now,
        expires_at=now + window,
        metadata=metadata,
    )
    return StoredJob(batch, spec, owner=context.owner)


def _stored_spec(
    query: BatchQuery, context: SubmissionContext, loaded: LoadedBundle, task: Task
) -> StoredJobSpec:
    _expect_one_input(query)
    bundle_info_of(loaded)
    spec = StoredJobSpec(
        model=loaded.name,
        version=loaded.version,
        digest=loaded.manifest.digest,
        task=task,
        file=None,
        filename=None,
        path=query.input_path,
        columns=[query.columns] if isinstance(query.columns, str) else query.columns,
        labelled=query.labels,
        output="",
        shard_rows=context.settings.job_shard_rows,
        output_expires_after=_output_expiry(query),
        output_url=_output_url(query, context.settings),
    )
    if query.input_url is not None:
        return _spec_of_object(spec, query, query.input_url, context)
    if query.input_file_id is not None:
        file = find_file(context.database, query.input_file_id, context.owner)
        spec = replace(spec, file=file.path, filename=file.filename)
    root = context.settings.input_root
    files = input_files(spec, context.state_dir, root)
    spec = replace(spec, output=_output_extension(query, files[0]))
    return with_input_schema(spec, query.endpoint, loaded, files, context.state_dir, root)


def _expect_one_input(query: BatchQuery) -> None:
    inputs = ("input_file_id", "input_path", "input_url")
    given = [name for name in inputs if getattr(query, name) is not None]
    if len(given) != 1:
        got = " and ".join(given) or "none"
        raise InvalidQuery(f"input: expected one of {', '.join(inputs)}, got {got}")


def _spec_of_object(
    spec: StoredJobSpec, query: BatchQuery, text: str, context: SubmissionContext
) -> StoredJobSpec:
    """Return the specification with an input in a store, and with all that its address says."""
    settings = context.settings
    url = parse_job_url("input_url", text, settings.job_urls)
    expect_known_format(url)
    found = find_input_object(url, settings.max_file_bytes, context.log)
    expect_room(context.database, found.size, settings.max_files_bytes)
    return replace(spec, input_object=found, output=_output_extension(query, Path(url.name)))


def _output_url(query: BatchQuery, settings: Settings) -> str | None:
    if query.output_url is None:
        return None
    url = str(parse_job_url("output_url", query.output_url, settings.job_urls))
    if url == query.input_url:
        raise InvalidQuery(f"output_url: expected another address than input_url, got {url}")
    return url


def requested_model(query: BatchQuery) -> str:
    """Return the name of the bundle that a query names. Raises InvalidQuery."""
    return _parse_endpoint(query)[0]


def _parse_endpoint(query: BatchQuery) -> tuple[str, Task]:
    """Return the bundle's name, and the task with its parameters."""
    match = _ENDPOINT.fullmatch(query.endpoint)
    if match is None:
        raise InvalidQuery(
            "endpoint: expected /v1/models/{name}/score, /probabilities or /top_k, "
            f"got {query.endpoint[:100]!r}"
        )
    name, route = match[1], match[2]
    default = _TASK_OF_ROUTE.get(route, "target_log_prob")
    task_name = default if query.task is None else parse_task_name(query.task)
    if route in _TASK_OF_ROUTE and task_name != _TASK_OF_ROUTE[route]:
        raise InvalidQuery(f"task: expected {_TASK_OF_ROUTE[route]} at {route}, got {task_name}")
    return name, build_task(task_name, query)


def _output_expiry(query: BatchQuery) -> int | None:
    if query.output_expires_after is None:
        return None
    return expiry_seconds("output_expires_after", query.output_expires_after)


def _output_extension(query: BatchQuery, input: Path) -> str:
    """Return the extension of the output file."""
    if query.output_format is None:
        return output_extension(input)
    extension = "." + query.output_format.removeprefix(".").lower()
    if extension not in OUTPUT_EXTENSIONS:
        raise InvalidQuery(
            f"output_format: expected {', '.join(one[1:] for one in OUTPUT_EXTENSIONS)}, "
            f"got {query.output_format[:60]!r}"
        )
    return extension


def _parse_window(text: str) -> int:
    """Return the completion window in seconds."""
    match = _WINDOW.fullmatch(text)
    seconds = int(match[1]) * _UNIT_SECONDS[match[2]] if match else 0
    if not 0 < seconds <= _MAX_WINDOW_S:
        raise InvalidQuery(
            f"completion_window: expected a number and s, m, h or d, at most 30d, got {text[:60]!r}"
        )
    return seconds


def _check_metadata(metadata: dict[str, str] | None) -> dict[str, str] | None:
    for name, value in (metadata or {}).items():
        if len(name) > _MAX_NAME_CHARS or len(value) > _MAX_VALUE_CHARS:
            raise InvalidQuery(
                f"metadata: expected names of at most {_MAX_NAME_CHARS} characters and values of "
                f"{_MAX_VALUE_CHARS}, got longer ones"
            )
    if len(metadata or {}) > _MAX_METADATA_ITEMS:
        raise InvalidQuery(
            f"metadata: expected at most {_MAX_METADATA_ITEMS}, got {len(metadata or {})}"
        )
    return metadata
