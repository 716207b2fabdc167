"""What a job is told, and what makes it the same job when it is taken up again."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hsoftmax.models.arrays import Int64
from hsoftmax.scoring.bundle_info import Facts
from hsoftmax.scoring.errors import CallError
from hsoftmax.scoring.formats import CUSTOM_ID, Columns, Format, Layout, Source
from hsoftmax.scoring.row_batch import Reading, reading
from hsoftmax.scoring.task import Field, Form, Task, check, fields, needs_target, values_per_row

from .output import Delivery

_RECORDS = 1  # raised when records change, so that no output has two kinds
_SHARD_ROWS = 65_536
_SHARD_VALUES = 2**24  # numbers in a shard's records
_BATCH_ROWS = 8192
_BATCH_VALUES = 2**21  # numbers in a batch's answers, and in its hidden states


@dataclass(frozen=True)
class Order:
    """One job: the rows of `source`, to be answered by `facts`' bundle, into `output`.

    An output whose name has no extension is a folder, with a file for each shard.

    Attributes:
        apart: error records go into a file beside the output, as they do where it is `mute`
        repeated: [repeats, 2] of a survey: rows that are flawed as their ids are not their own
    """

    output: Path
    source: Source
    format: Format
    facts: Facts
    task: Task
    form: Form
    columns: Columns
    labelled: bool
    batch: int
    shard_rows: int
    apart: bool = False
    repeated: Int64 | None = None

    @property
    def delivery(self) -> Delivery:
        """All that its end needs."""
        return Delivery(
            self.output, self.format, self.layout, self.task, self.facts.name, self.apart
        )

    @property
    def layout(self) -> Layout:
        """The shape of the output's records."""
        width = values_per_row(self.task, self.form, self.facts)
        listed = {"top_k": self.task.k, "sample": self.task.num_samples}.get(self.task.name, width)
        id_name = CUSTOM_ID if self.columns.id == CUSTOM_ID else "id"
        faults = not self.apart
        return Layout(self._fields, self.source.id_kind, listed, id_name, faults)

    @property
    def reading(self) -> Reading:
        """What rows are read for; in columns, one row's target is a list only if all are."""
        wanted = reading(self.task, self.form == "none", self.facts)
        if wanted.targets == "any" and self.form == "one" and self.format.columnar:
            return Reading(self.facts, "one")
        return wanted

    @property
    def _fields(self) -> tuple[Field, ...]:
        return fields(self.task, self.form, self.facts)

    def identity(self) -> dict[str, Any]:
        """All that the output's bytes depend on."""
        return {
            "records": _RECORDS,
            "bundle": self.facts.digest,
            "input": fingerprint(self.source.files),
            "options": {
                **asdict(self.task),
                "columns": {k: list(v) if isinstance(v, tuple) else v
                            for k, v in asdict(self.columns).items() if v != ""},
                **({"apart": True} if self.apart else {}),
                "labelled": self.labelled,
                "format": self.format.name,
                "batch": self.batch,
                "shard_rows": self.shard_rows,
            },
        }  # fmt: skip


def make_order(
    source: Source,
    output: Path,
    format: Format,
    facts: Facts,
    task: Task,
    *,
    columns: Columns,
    labelled: bool = False,
    batch: int | None = None,
    shard_rows: int | None = None,
    apart: bool = False,
    repeated: Int64 | None = None,
) -> Order:
    """A checked order. Raises CallError where the bundle, the rows or the format do not do."""
    form = "one" if source.form == "none" and needs_target(task) else source.form
    check(task, form, facts)
    if format.name == "npy" and form == "many" and needs_target(task):
        raise CallError("npy: expected one target in each row, got lists: an array has one width")
    each = max(values_per_row(task, form, facts), facts.hidden_size)
    size = batch or max(1, min(_BATCH_ROWS, _BATCH_VALUES // each))
    wanted = max(1, min(_SHARD_ROWS, _SHARD_VALUES // values_per_row(task, form, facts)))
    return Order(
        output=output,
        source=source,
        format=format,
        facts=facts,
        task=task,
        form=form,
        columns=columns,
        labelled=labelled,
        batch=size,
        shard_rows=shard_rows or -(-wanted // size) * size,
        apart=apart,
        repeated=repeated,
    )


def fingerprint(files: Sequence[Path]) -> list[list[Any]]:
    """Name, size and time of change of every file of the input."""
    stats = [(path.name, path.stat()) for path in files]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def expect_same(wanted: Mapping[str, Any], got: Mapping[str, Any]) -> None:
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
