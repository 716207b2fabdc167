"""What a job was told, fixed when it was made: enough to take it up again in any process."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class StoredJobSpec:
    """A job's terms.

    Attributes:
        digest: of the bundle that scores all of it, under whatever version
        file, filename: of an uploaded input: its path in the state folder, and its own name
        path: of an input that is read in place, from the input root
        fingerprint: of the input as it was then
        output: the output's extension
        batch: rows in one run of the graph
        layout: of its records, for when input and bundle are gone
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

    def encode(self) -> bytes:
        return msgspec.json.encode(self)


def decode_spec(spec: bytes) -> StoredJobSpec:
    return msgspec.json.decode(spec, type=StoredJobSpec)


def bundle_info_of(loaded: LoadedBundle) -> BundleInfo:
    """A served bundle as those who read rows see it. Raises InvalidQuery for no softmax."""
    manifest = loaded.manifest
    if manifest.hidden_size is None or manifest.num_targets is None:
        raise InvalidQuery(f"{loaded.name}: expected a softmax, got a {manifest.family}")
    return loaded.bundle_info


def open_source(
    spec: StoredJobSpec, files: tuple[Path, ...], bundle_info: BundleInfo
) -> tuple[RowReader, Columns]:
    """The rows, and which column is what. Raises CallError where they do not fit the bundle."""
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
    """What the scoring core is told. Raises CallError where the bundle cannot do it."""
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
    """All that is needed to give out what is finished."""
    assert spec.layout is not None
    return OutputSpec(
        output, find_format(output), spec.layout, spec.task, spec.model, separate_errors=True
    )
