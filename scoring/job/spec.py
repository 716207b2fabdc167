"""What a job is told, and what makes it the same job when it is taken up again."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hsoftmax.models.arrays import Int64
from hsoftmax.scoring.bundle_info import BundleInfo
from hsoftmax.scoring.errors import CallError
from hsoftmax.scoring.formats import CUSTOM_ID, Columns, OutputFormat, RecordSchema, RowReader
from hsoftmax.scoring.row_batch import RowRequirements, row_requirements
from hsoftmax.scoring.task import (
    RecordField,
    TargetShape,
    Task,
    check_task,
    fields,
    needs_target,
    values_per_row,
)

from .output import OutputSpec

_RECORDS = 1  # raised when records change, so that no output has two kinds
_SHARD_ROWS = 65_536
_SHARD_VALUES = 2**24  # numbers in a shard's records
_BATCH_ROWS = 8192
_BATCH_VALUES = 2**21  # numbers in a batch's answers, and in its hidden states


@dataclass(frozen=True)
class JobSpec:
    """One job: the rows of `source`, to be answered by `facts`' bundle, into `output`.

    An output whose name has no extension is a folder, with a file for each shard.

    Attributes:
        apart: error records go into a file beside the output, as they do where it is `mute`
        repeated: [repeats, 2] of a survey: rows that are flawed as their ids are not their own
    """

    output: Path
    reader: RowReader
    format: OutputFormat
    bundle_info: BundleInfo
    task: Task
    target_shape: TargetShape
    columns: Columns
    labelled: bool
    batch: int
    shard_rows: int
    separate_errors: bool = False
    duplicates: Int64 | None = None

    @property
    def output_spec(self) -> OutputSpec:
        """All that its end needs."""
        return OutputSpec(
            self.output,
            self.format,
            self.record_schema,
            self.task,
            self.bundle_info.name,
            self.separate_errors,
        )

    @property
    def record_schema(self) -> RecordSchema:
        """The shape of the output's records."""
        width = values_per_row(self.task, self.target_shape, self.bundle_info)
        listed = {"top_k": self.task.k, "sample": self.task.num_samples}.get(self.task.name, width)
        id_name = CUSTOM_ID if self.columns.id == CUSTOM_ID else "id"
        faults = not self.separate_errors
        return RecordSchema(self._fields, self.reader.id_kind, listed, id_name, faults)

    @property
    def requirements(self) -> RowRequirements:
        """What rows are read for; in columns, one row's target is a list only if all are."""
        wanted = row_requirements(self.task, self.target_shape == "none", self.bundle_info)
        if wanted.targets == "any" and self.target_shape == "one" and self.format.columnar:
            return RowRequirements(self.bundle_info, "one")
        return wanted

    @property
    def _fields(self) -> tuple[RecordField, ...]:
        return fields(self.task, self.target_shape, self.bundle_info)

    def identity(self) -> dict[str, Any]:
        """All that the output's bytes depend on."""
        return {
            "records": _RECORDS,
            "bundle": self.bundle_info.digest,
            "input": fingerprint(self.reader.files),
            "options": {
                **asdict(self.task),
                "columns": {k: list(v) if isinstance(v, tuple) else v
                            for k, v in asdict(self.columns).items() if v != ""},
                **({"apart": True} if self.separate_errors else {}),
                "labelled": self.labelled,
                "format": self.format.name,
                "batch": self.batch,
                "shard_rows": self.shard_rows,
            },
        }  # fmt: skip


def build_job_spec(
    reader: RowReader,
    output: Path,
    format: OutputFormat,
    bundle_info: BundleInfo,
    task: Task,
    *,
    columns: Columns,
    labelled: bool = False,
    batch: int | None = None,
    shard_rows: int | None = None,
    separate_errors: bool = False,
    duplicates: Int64 | None = None,
) -> JobSpec:
    """A checked order. Raises CallError where the bundle, the rows or the format do not do."""
    target_shape = (
        "one" if reader.target_shape == "none" and needs_target(task) else reader.target_shape
    )
    check_task(task, target_shape, bundle_info)
    if format.name == "npy" and target_shape == "many" and needs_target(task):
        raise CallError("npy: expected one target in each row, got lists: an array has one width")
    each = max(values_per_row(task, target_shape, bundle_info), bundle_info.hidden_size)
    size = batch or max(1, min(_BATCH_ROWS, _BATCH_VALUES // each))
    wanted = max(
        1, min(_SHARD_ROWS, _SHARD_VALUES // values_per_row(task, target_shape, bundle_info))
    )
    return JobSpec(
        output=output,
        reader=reader,
        format=format,
        bundle_info=bundle_info,
        task=task,
        target_shape=target_shape,
        columns=columns,
        labelled=labelled,
        batch=size,
        shard_rows=shard_rows or -(-wanted // size) * size,
        separate_errors=separate_errors,
        duplicates=duplicates,
    )


def fingerprint(files: Sequence[Path]) -> list[list[Any]]:
    """Name, size and time of change of every file of the input."""
    stats = [(path.name, path.stat()) for path in files]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def expect_same_job(wanted: Mapping[str, Any], got: Mapping[str, Any]) -> None:
    """Raise CallError unless a job begun as `got` may be taken up as `wanted`."""
    if wanted["records"] != got["records"]:
        raise CallError("resume: expected a job of this version of hsoftmax, got another one's")
    if wanted["bundle"] != got["bundle"]:
        raise CallError(f"resume: expected the bundle that the job began with, digest "
                        f"{got['bundle'][:12]}, got {wanted['bundle'][:12]}")  # fmt: skip
    if wanted["input"] != got["input"]:
        raise CallError(f"resume: expected the input that the job began with, got "
                        f"{_changed(wanted['input'], got['input'])}")  # fmt: skip
    for name, value in wanted["options"].items():
        if value != got["options"].get(name):
            said = "task" if name == "name" else name
            raise CallError(
                f"resume: expected {said} {got['options'].get(name)!r}, as the job began, "
                f"got {value!r}"
            )


def _changed(now: Sequence[Sequence[Any]], then: Sequence[Sequence[Any]]) -> str:
    before = {name: rest for name, *rest in then}
    changed = [name for name, *rest in now if before.get(name) != rest]
    return f"{changed[0]} changed since" if changed else "fewer files"
