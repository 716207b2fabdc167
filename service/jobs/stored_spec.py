"""Stored specification of a job, written once at submission, from which any process resumes it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from hsoftmax.models.arrays import Int64
from hsoftmax.scoring import (
    BundleInfo,
    Columns,
    JobSpec,
    OutputSpec,
    RecordSchema,
    RowReader,
    Task,
    build_job_spec,
    detect_columns,
    find_format,
    open_inputs,
    parse_columns,
)
from hsoftmax.service.errors import InvalidQuery
from hsoftmax.service.repository.loaded_bundle import LoadedBundle

from .input_object import InputObject


@dataclass(frozen=True)
class StoredJobSpec:
    """The specification of a job: all that it needs to run, stored as JSON in the database.

    Attributes:
        digest: digest of the bundle that scores all rows, also if its version changes
        file, filename: uploaded input: its path in the state folder, and the client's name for it
        path: input that is read in place, relative to the input root
        fingerprint: names, sizes and modification times of the input files when they were opened
        output: extension of the output file
        batch: rows in one graph run
        layout: schema of the output records, needed when input and bundle no longer exist
        requests: kind of the bodies if lines are requests in OpenAI's format; "" if they are rows
        output_expires_after: seconds from the end of the job to the removal of its outputs
        input_object: input in a store, which the job downloads; `file` is empty until then
        output_url: address in a store to which the job writes its output as well
    """

    model: str
    version: str
    digest: str
    task: Task
    file: str | None
    filename: str | None
    path: str | None
    columns: list[str]
    labelled: bool
    output: str
    shard_rows: int | None
    batch: int | None = None
    fingerprint: list[list[Any]] = field(default_factory=list)
    layout: RecordSchema | None = None
    requests: Literal["", "row", "query"] = ""
    output_expires_after: int | None = None
    input_object: InputObject | None = None
    output_url: str | None = None

    def encode(self) -> bytes:
        return msgspec.json.encode(self)


def decode_spec(spec: bytes) -> StoredJobSpec:
    return msgspec.json.decode(spec, type=StoredJobSpec)


def bundle_info_of(loaded: LoadedBundle) -> BundleInfo:
    """Return the bundle info that row readers need. Raises InvalidQuery for a layer bundle."""
    manifest = loaded.manifest
    if manifest.hidden_size is None or manifest.num_targets is None:
        raise InvalidQuery(f"{loaded.name}: expected a softmax, got a {manifest.family}")
    return loaded.bundle_info


def open_source(
    spec: StoredJobSpec, files: tuple[Path, ...], bundle_info: BundleInfo
) -> tuple[RowReader, Columns]:
    """Open the input and find its columns. Raises CallError if it does not fit the bundle."""
    columns = detect_columns(files, parse_columns(spec.columns))
    return open_inputs(files, columns, bundle_info, labelled=spec.labelled), columns


def job_spec_of(
    spec: StoredJobSpec,
    output: Path,
    source: RowReader,
    columns: Columns,
    bundle_info: BundleInfo,
    duplicates: Int64 | None = None,
) -> JobSpec:
    """Build the `scoring.JobSpec` of the job. Raises CallError if the bundle lacks the task."""
    return build_job_spec(
        source,
        output,
        find_format(output),
        bundle_info,
        spec.task,
        columns=columns,
        labelled=spec.labelled,
        batch=spec.batch,
        shard_rows=spec.shard_rows,
        separate_errors=True,
        duplicates=duplicates,
    )


def output_spec_of(spec: StoredJobSpec, output: Path) -> OutputSpec:
    """Build the `scoring.OutputSpec` with which finished shards become output files."""
    assert spec.layout is not None
    return OutputSpec(
        output, find_format(output), spec.layout, spec.task, spec.model, separate_errors=True
    )
