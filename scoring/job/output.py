"""What the end of a job needs to know, apart from rows and bundle: both may be gone by then."""

from dataclasses import dataclass
from pathlib import Path

from hsoftmax.scoring.formats import OutputFormat, RecordSchema
from hsoftmax.scoring.task import Task


@dataclass(frozen=True)
class OutputSpec:
    """Where finished shards go, and as what.

    Attributes:
        model: the bundle's name
        apart: error records are in the ledger, and go into a file beside the output
    """

    output: Path
    format: OutputFormat
    record_schema: RecordSchema
    task: Task
    model: str
    separate_errors: bool = False

    @property
    def folder(self) -> bool:
        """An output whose name has no extension."""
        return not self.output.suffix

    @property
    def has_error_file(self) -> bool:
        return self.separate_errors or self.format.mute
