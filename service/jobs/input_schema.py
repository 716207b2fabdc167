"""Completes the specification of a job by what its input files have: formats, columns, requests.

Submission calls it, or the job thread if the input of the job is in a store. It opens the files,
but does not read all of their rows.
"""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

from hsoftmax.scoring import CallError, ScoringError, extension_of, fingerprint
from hsoftmax.service.errors import InvalidQuery, UnsupportedMediaType
from hsoftmax.service.repository.loaded_bundle import LoadedBundle

from .input_files import client_message
from .request_lines import BATCH_LINES, SHARD_LINES, request_kind
from .state_dir import StateDir
from .stored_spec import StoredJobSpec, bundle_info_of, job_spec_of, open_source

_LINES = (".ndjson", ".jsonl")
# Parsing the text of a batch holds the interpreter lock, with this bound for a few milliseconds.
_MAX_BATCH_VALUES = 2**16
_MIN_BATCH_ROWS = 16  # a full distribution reads all weights once for each batch


def with_input_schema(
    spec: StoredJobSpec,
    endpoint: str,
    loaded: LoadedBundle,
    files: tuple[Path, ...],
    state_dir: StateDir,
    root: Path | None,
) -> StoredJobSpec:
    """Return the specification of the job for these files.

    Raises:
        InvalidQuery, UnsupportedMediaType: the bundle cannot score them; the message says why.
    """
    spec = replace(spec, fingerprint=fingerprint(files))
    spec = _with_request_kind(spec, endpoint, files)
    return _with_record_schema(spec, loaded, files, state_dir, root)


def _with_request_kind(
    spec: StoredJobSpec, endpoint: str, files: tuple[Path, ...]
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
    if endpoint.endswith("/score"):
        raise InvalidQuery(
            "input: expected bodies with `input`, the rows of this endpoint, got `inputs`, which "
            "/probabilities and /top_k have"
        )
    rows = spec.shard_rows or SHARD_LINES
    # Each request has a `k` of its own, so 1 fits every bundle.
    return replace(spec, requests=kind, batch=BATCH_LINES, shard_rows=rows,
                   task=replace(spec.task, k=1))  # fmt: skip


def _with_record_schema(
    spec: StoredJobSpec,
    loaded: LoadedBundle,
    files: tuple[Path, ...],
    state_dir: StateDir,
    root: Path | None,
) -> StoredJobSpec:
    """Return the spec with its record schema and batch size. It opens the input to check it."""
    bundle_info = bundle_info_of(loaded)
    try:
        source, columns = open_source(spec, files, bundle_info)
        with closing(source):
            job_spec = job_spec_of(spec, Path(f"output{spec.output}"), source, columns, bundle_info)
            max_rows = max(_MIN_BATCH_ROWS, _MAX_BATCH_VALUES // bundle_info.hidden_size)
            return replace(spec, layout=job_spec.record_schema, batch=min(job_spec.batch, max_rows))
    except CallError as error:
        raise InvalidQuery(client_message(error, spec, files, state_dir, root)) from None
    except ScoringError as error:  # the library that reads the format is not installed
        raise UnsupportedMediaType(client_message(error, spec, files, state_dir, root)) from None
    except OSError as error:
        raise InvalidQuery(f"input: it cannot be read: {error.strerror}") from None
