"""The specification of a job, and the identity check of --resume."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hsoftmax.models.arrays import Int64
from hsoftmax.scoring.bundle_info import BundleInfo
from hsoftmax.scoring.errors import CallError
from hsoftmax.scoring.formats import CUSTOM_ID, Columns, OutputFormat, RecordSchema, RowReader
from hsoftmax.scoring.requirements import RowRequirements, row_requirements
from hsoftmax.scoring.task import (
    TargetShape,
    Task,
    check_task,
    graph_for_task,
    k_of,
    needs_target,
    record_fields,
    searched_k,
    values_per_row,
    with_default_k,
)

from .output import OutputSpec

_RECORDS_VERSION = 1  # raised when records change: a resumed output must not mix two kinds
_MAX_SHARD_ROWS = 65_536
_MAX_SHARD_VALUES = 2**24  # numbers in the records of a shard
_MAX_BATCH_ROWS = 8192
_MAX_BATCH_VALUES = 2**21  # numbers in the results of a batch, and in its hidden states
_RUNTIMES = {True: "native kernels (--native on)", False: "ONNX Runtime (--native off)"}


@dataclass(frozen=True)
class JobSpec:
    """One job: the rows of `reader`, scored by the bundle of `bundle_info`, into `output`.

    Attributes:
        output: a file; without an extension, a folder with a file for each shard
        batch: rows in one run of the graph
        separate_errors: error records go into a file beside the output
        duplicates: [duplicates, 2] of `DuplicateIds`: rows that fail because they repeat an id
        native: True if native kernels compute the task
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
    native: bool = False

    @property
    def output_spec(self) -> OutputSpec:
        """The part of the specification that the end of the job needs."""
        return OutputSpec(
            path=self.output,
            format=self.format,
            record_schema=self.record_schema,
            task=self.task,
            model=self.bundle_info.name,
            separate_errors=self.separate_errors,
        )

    @property
    def record_schema(self) -> RecordSchema:
        """The schema of the output's records."""
        return RecordSchema(
            fields=record_fields(self.task, self.target_shape, self.bundle_info),
            id_kind=self.reader.id_kind,
            width=self._list_length(),
            id_name=CUSTOM_ID if self.columns.id == CUSTOM_ID else "id",
            faults=not self.separate_errors,
        )

    def _list_length(self) -> int:
        """Returns the length of a record's lists, the most if it differs from row to row."""
        match self.task.name:
            case "top_k":
                searched = searched_k(self.task, self.bundle_info)
                return min(searched, k_of(self.task, self.bundle_info))
            case "sample":
                return self.task.num_samples
            case _:
                return values_per_row(self.task, self.target_shape, self.bundle_info)

    @property
    def requirements(self) -> RowRequirements:
        """The requirements on each row.

        In a columnar format a row may not have a list of targets unless all rows have one.
        """
        required = row_requirements(self.task, self.target_shape == "none", self.bundle_info)
        if required.targets == "any" and self.target_shape == "one" and self.format.columnar:
            return RowRequirements(self.bundle_info, "one")
        return required

    def identity(self) -> dict[str, Any]:
        """Returns everything that the output's bytes depend on, as JSON."""
        return {
            "records": _RECORDS_VERSION,
            "bundle": self.bundle_info.digest,
            "input": fingerprint(self.reader.files),
            "native": self.native,
            "options": {
                # A field that older versions did not have is left out at its default.
                **{k: v for k, v in asdict(self.task).items() if k != "threshold" or v is not None},
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
    """Builds a checked specification, and chooses `batch` and `shard_rows` where they are None.

    Raises:
        CallError: the bundle, the rows or the format do not support the task.
    """
    target_shape = reader.target_shape
    if target_shape == "none" and needs_target(task):
        target_shape = "one"
    task = with_default_k(task, bundle_info)
    check_task(task, target_shape, bundle_info)
    if format.name == "npy" and target_shape == "many" and needs_target(task):
        raise CallError("npy: expected one target in each row, got lists: an array has one width")
    values = values_per_row(task, target_shape, bundle_info)
    batch = batch or _default_batch(max(values, bundle_info.hidden_size))
    return JobSpec(
        output=output,
        reader=reader,
        format=format,
        bundle_info=bundle_info,
        task=task,
        target_shape=target_shape,
        columns=columns,
        labelled=labelled,
        batch=batch,
        shard_rows=shard_rows or _default_shard_rows(values, batch),
        separate_errors=separate_errors,
        duplicates=duplicates,
        native=graph_for_task(task, target_shape) in bundle_info.native,
    )


def _default_batch(values: int) -> int:
    return max(1, min(_MAX_BATCH_ROWS, _MAX_BATCH_VALUES // values))


def _default_shard_rows(values: int, batch: int) -> int:
    """Returns a bounded number of rows, rounded up to whole batches."""
    rows = max(1, min(_MAX_SHARD_ROWS, _MAX_SHARD_VALUES // values))
    return -(-rows // batch) * batch


def fingerprint(files: Sequence[Path]) -> list[list[Any]]:
    """Returns [name, size, modification time in ns] of every file of the input."""
    stats = [(path.name, path.stat()) for path in files]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def expect_same_job(expected: Mapping[str, Any], begun: Mapping[str, Any]) -> None:
    """Raises CallError unless a job begun with identity `begun` may resume as `expected`.

    A job of an older version may: it did not record what computed it.
    """
    if expected["records"] != begun["records"]:
        raise CallError("resume: expected a job of this version of hsoftmax, got another one's")
    if expected["bundle"] != begun["bundle"]:
        raise CallError(f"resume: expected the bundle that the job began with, digest "
                        f"{begun['bundle'][:12]}, got {expected['bundle'][:12]}")  # fmt: skip
    if expected["input"] != begun["input"]:
        raise CallError(f"resume: expected the input that the job began with, got "
                        f"{_input_change(expected['input'], begun['input'])}")  # fmt: skip
    if expected["native"] != begun.get("native", expected["native"]):
        raise CallError(f"resume: expected {_RUNTIMES[begun['native']]}, as the job began, got "
                        f"{_RUNTIMES[expected['native']]}: their last digits differ")  # fmt: skip
    now, then = expected["options"], begun["options"]
    for name in {**now, **then}:
        if now.get(name) != then.get(name):
            option = "task" if name == "name" else name
            raise CallError(
                f"resume: expected {option} {then.get(name)!r}, as the job began, "
                f"got {now.get(name)!r}"
            )


def _input_change(now: Sequence[Sequence[Any]], then: Sequence[Sequence[Any]]) -> str:
    before = {name: rest for name, *rest in then}
    changed = [name for name, *rest in now if before.get(name) != rest]
    return f"{changed[0]} changed since" if changed else "fewer files"
