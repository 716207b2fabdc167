"""POST /v1/batches: from what is asked to a job that can be carried out, or one clear error now."""

import hashlib
import json
import re
import secrets
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from hsoftmax.scoring import EXTENSIONS, CallError, ScoringError, Task, TaskName, fingerprint
from hsoftmax.service.errors import InvalidQuery, UnsupportedMediaType
from hsoftmax.service.inference.scoring_task import TaskQuery, build_task, parse_task_name
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.repository.repository import Repository
from hsoftmax.service.settings import Settings

from .batch_store import Job
from .database import Database
from .file_store import find_file
from .input_files import input_files, told
from .schemas import BatchObject
from .state_dir import StateDir
from .stored_spec import Spec, facts_of, open_source, order_of

_ENDPOINT = re.compile(r"/v1/models/([^/]+)/(score|probabilities|top_k|topk)")
_TASK_OF: dict[str, TaskName] = {
    "probabilities": "probabilities",
    "top_k": "top_k",
    "topk": "top_k",  # the deprecated alias of the route
}
_WINDOW = re.compile(r"([1-9]\d{0,8})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
# Numbers are made of text in one go, in which nobody else has the interpreter: some milliseconds.
_PARSED_VALUES = 2**16
_LEAST_ROWS = 16  # a full distribution reads all weights for each batch
_LONGEST_WINDOW = 30 * 86_400  # seconds
_MOST_METADATA, _LONGEST_NAME, _LONGEST_VALUE = 16, 64, 512


class BatchQuery(TaskQuery, frozen=True):
    """What to score, and how; after `metadata` come the fields that are ours."""

    endpoint: str
    completion_window: str = "24h"
    input_file_id: str | None = None
    metadata: dict[str, str] | None = None
    input_path: str | None = None
    task: str | None = None
    columns: str | list[str] = msgspec.field(default_factory=list)
    labels: bool = False
    output_format: str | None = None

    def digest(self) -> str:
        """The same for the same question, however it is written."""
        plain = json.dumps(msgspec.to_builtins(self), sort_keys=True)
        return hashlib.sha256(plain.encode()).hexdigest()


@dataclass(frozen=True)
class SubmissionContext:
    """What a query is checked against."""

    place: StateDir
    database: Database
    repository: Repository
    settings: Settings


def make_job(query: BatchQuery, desk: SubmissionContext) -> Job:
    """The job, as yet nowhere but here. It opens the input, but reads none of its rows to the end.

    Raises:
        UnknownBundle, UnknownVersion, UnknownFile: it is not here.
        InvalidQuery, UnsupportedMediaType, Forbidden: it cannot be done; the sentence says why.
    """
    window, metadata = _window(query.completion_window), _metadata(query.metadata)
    name, task = _endpoint(query)
    version = None if query.version is None else str(query.version)
    served = desk.repository.find(name, version)
    spec = _spec(query, desk, served, task)
    now = int(time.time())
    batch = BatchObject(
        id=f"batch_{secrets.token_hex(12)}",
        endpoint=query.endpoint,
        model=served.name,
        version=served.version,
        digest=spec.digest,
        task=task.name,
        input_file_id=query.input_file_id,
        input_path=query.input_path,
        completion_window=query.completion_window,
        created_at=now,
        expires_at=now + window,
        metadata=metadata,
    )
    return Job(batch, spec)


def _spec(query: BatchQuery, desk: SubmissionContext, served: LoadedBundle, task: Task) -> Spec:
    if (query.input_file_id is None) == (query.input_path is None):
        got = "none" if query.input_path is None else "both"
        raise InvalidQuery(f"input: expected input_file_id or input_path, got {got}")
    spec = Spec(
        model=served.name,
        version=served.version,
        digest=served.manifest.digest,
        task=task,
        file=None,
        filename=None,
        path=query.input_path,
        columns=[query.columns] if isinstance(query.columns, str) else query.columns,
        labelled=query.labels,
        output="",
        shard_rows=desk.settings.job_shard_rows,
    )
    if query.input_file_id is not None:
        file = find_file(desk.database, query.input_file_id)
        spec = replace(spec, file=file.path, filename=file.filename)
    files = input_files(spec, desk.place, desk.settings.input_root)
    spec = replace(spec, output=_output(query, files), fingerprint=fingerprint(files))
    return _fitted(spec, desk, served, files)


def _fitted(
    spec: Spec, desk: SubmissionContext, served: LoadedBundle, files: tuple[Path, ...]
) -> Spec:
    """The spec with the layout of its output: whatever can be known to be wrong is found here."""
    bundle_info, root = facts_of(served), desk.settings.input_root
    try:
        source, columns = open_source(spec, files, bundle_info)
        with closing(source):
            order = order_of(spec, Path(f"output{spec.output}"), source, columns, bundle_info)
            most = max(_LEAST_ROWS, _PARSED_VALUES // bundle_info.hidden_size)
            return replace(spec, layout=order.record_schema, batch=min(order.batch, most))
    except CallError as error:
        raise InvalidQuery(told(error, spec, files, desk.place, root)) from None
    except ScoringError as error:  # what reads the format is not installed
        raise UnsupportedMediaType(told(error, spec, files, desk.place, root)) from None
    except OSError as error:
        raise InvalidQuery(f"input: it cannot be read: {error.strerror}") from None


def _endpoint(query: BatchQuery) -> tuple[str, Task]:
    """The bundle's name, and the task with its parameters."""
    found = _ENDPOINT.fullmatch(query.endpoint)
    if found is None:
        raise InvalidQuery(
            "endpoint: expected /v1/models/{name}/score, /probabilities or /top_k, "
            f"got {query.endpoint[:100]!r}"
        )
    name, question = found[1], found[2]
    usual = _TASK_OF.get(question, "target_log_prob")
    asked = usual if query.task is None else parse_task_name(query.task)
    if question in _TASK_OF and asked != _TASK_OF[question]:
        raise InvalidQuery(f"task: expected {_TASK_OF[question]} at {question}, got {asked}")
    return name, build_task(asked, query)


def _output(query: BatchQuery, files: tuple[Path, ...]) -> str:
    """The output's extension."""
    if query.output_format is None:
        return files[0].suffix
    extension = "." + query.output_format.removeprefix(".").lower()
    if extension not in EXTENSIONS:
        raise InvalidQuery(
            f"output_format: expected {', '.join(one[1:] for one in EXTENSIONS)}, "
            f"got {query.output_format[:60]!r}"
        )
    return extension


def _window(text: str) -> int:
    """Seconds."""
    found = _WINDOW.fullmatch(text)
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not 0 < seconds <= _LONGEST_WINDOW:
        raise InvalidQuery(
            f"completion_window: expected a number and s, m, h or d, at most 30d, got {text[:60]!r}"
        )
    return seconds


def _metadata(metadata: dict[str, str] | None) -> dict[str, str] | None:
    for name, value in (metadata or {}).items():
        if len(name) > _LONGEST_NAME or len(value) > _LONGEST_VALUE:
            raise InvalidQuery(
                f"metadata: expected names of at most {_LONGEST_NAME} characters and values of "
                f"{_LONGEST_VALUE}, got longer ones"
            )
    if len(metadata or {}) > _MOST_METADATA:
        raise InvalidQuery(
            f"metadata: expected at most {_MOST_METADATA}, got {len(metadata or {})}"
        )
    return metadata
