"""Builds a job from the body of POST /v1/batches, and rejects a query that cannot succeed.

The route for batches calls it. Every error that is visible before the rows are read is raised here.
"""

import hashlib
import json
import re
import secrets
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from hsoftmax.scoring import (
    OUTPUT_EXTENSIONS,
    CallError,
    ScoringError,
    Task,
    TaskName,
    extension_of,
    fingerprint,
    output_extension,
)
from hsoftmax.service.errors import InvalidQuery, UnsupportedMediaType
from hsoftmax.service.inference.scoring_task import TaskQuery, build_task, parse_task_name
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.repository.repository import Repository
from hsoftmax.service.settings import Settings

from .batch_store import StoredJob
from .database import Database
from .expires_after import ExpiresAfter, expiry_seconds
from .file_store import find_file
from .input_files import client_message, input_files
from .request_lines import BATCH_LINES, SHARD_LINES, request_kind
from .schemas import BatchObject
from .state_dir import StateDir
from .stored_spec import StoredJobSpec, bundle_info_of, job_spec_of, open_source

_ENDPOINT = re.compile(r"/v1/models/([^/]+)/(score|probabilities|top_k|topk)")
_TASK_OF_ROUTE: dict[str, TaskName] = {
    "probabilities": "probabilities",
    "top_k": "top_k",
    "topk": "top_k",  # the deprecated alias of the route
}
_LINES = (".ndjson", ".jsonl")
_WINDOW = re.compile(r"([1-9][0-9]{0,8})([smhd])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
# Parsing the text of a batch holds the interpreter lock, with this bound for a few milliseconds.
_MAX_BATCH_VALUES = 2**16
_MIN_BATCH_ROWS = 16  # a full distribution reads all weights once for each batch
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
    task: str | None = None
    columns: str | list[str] = msgspec.field(default_factory=list)
    labels: bool = False
    output_format: str | None = None

    def digest(self) -> str:
        """Return a SHA-256 that does not depend on the order of fields or on white space."""
        fields = msgspec.to_builtins(self)
        for name in ("output_expires_after", "threshold"):
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
    owner: str | None = None


def build_job(query: BatchQuery, context: SubmissionContext) -> StoredJob:
    """Build the job without storing it. It opens the input, but does not read all of its rows.

    Raises:
        UnknownBundle, UnknownVersion, UnknownFile: the service does not have it.
        InvalidQuery, UnsupportedMediaType, Forbidden: the job is impossible; the message says why.
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
        completion_window=query.completion_window,
        created_at=now,
        expires_at=now + window,
        metadata=metadata,
    )
    return StoredJob(batch, spec, owner=context.owner)


def _stored_spec(
    query: BatchQuery, context: SubmissionContext, loaded: LoadedBundle, task: Task
) -> StoredJobSpec:
    if (query.input_file_id is None) == (query.input_path is None):
        got = "none" if query.input_path is None else "both"
        raise InvalidQuery(f"input: expected input_file_id or input_path, got {got}")
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
    )
    if query.input_file_id is not None:
        file = find_file(context.database, query.input_file_id, context.owner)
        spec = replace(spec, file=file.path, filename=file.filename)
    files = input_files(spec, context.state_dir, context.settings.input_root)
    spec = replace(spec, output=_output_extension(query, files), fingerprint=fingerprint(files))
    spec = _with_request_kind(spec, query, files)
    return _with_record_schema(spec, context, loaded, files)


def _with_request_kind(
    spec: StoredJobSpec, query: BatchQuery, files: tuple[Path, ...]
) -> StoredJobSpec:
    """Return the spec with the kind of the requests, if the lines of the files are requests.

    A row in a request may also be written to another format than lines, as a plain record.
    """
    if extension_of(files[0]) not in _LINES:
        return spec
    try:
        kind = request_kind(files[0])
    except ScoringError:  # the reader of the rows says so, too, and names the file
        return spec
    except OSError as error:
        raise InvalidQuery(f"input: it cannot be read: {error.strerror}") from None
    if kind == "row" and spec.output not in _LINES:
        return spec
    if kind != "query":
        return replace(spec, requests=kind)
    if spec.output not in _LINES:
        raise InvalidQuery(
            f"output_format: expected ndjson for requests with `inputs`, got {spec.output[1:]}"
        )
    if query.endpoint.endswith("/score"):
        raise InvalidQuery(
            "input: expected bodies with `input`, the rows of this endpoint, got `inputs`, which "
            "/probabilities and /top_k have"
        )
    rows = spec.shard_rows or SHARD_LINES
    # Each request has a `k` of its own, so 1 fits every bundle.
    return replace(spec, requests=kind, batch=BATCH_LINES, shard_rows=rows,
                   task=replace(spec.task, k=1))  # fmt: skip


def _with_record_schema(
    spec: StoredJobSpec, context: SubmissionContext, loaded: LoadedBundle, files: tuple[Path, ...]
) -> StoredJobSpec:
    """Return the spec with its record schema and batch size. It opens the input to check it."""
    bundle_info, root = bundle_info_of(loaded), context.settings.input_root
    try:
        source, columns = open_source(spec, files, bundle_info)
        with closing(source):
            job_spec = job_spec_of(spec, Path(f"output{spec.output}"), source, columns, bundle_info)
            max_rows = max(_MIN_BATCH_ROWS, _MAX_BATCH_VALUES // bundle_info.hidden_size)
            return replace(spec, layout=job_spec.record_schema, batch=min(job_spec.batch, max_rows))
    except CallError as error:
        raise InvalidQuery(client_message(error, spec, files, context.state_dir, root)) from None
    except ScoringError as error:  # the library that reads the format is not installed
        raise UnsupportedMediaType(
            client_message(error, spec, files, context.state_dir, root)
        ) from None
    except OSError as error:
        raise InvalidQuery(f"input: it cannot be read: {error.strerror}") from None


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


def _output_extension(query: BatchQuery, files: tuple[Path, ...]) -> str:
    """Return the extension of the output file."""
    if query.output_format is None:
        return output_extension(files[0])
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
