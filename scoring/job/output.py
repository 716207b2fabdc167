"""The output of a job: its path, format and schema.

The end of a job needs no more than this. Its rows and its bundle may be gone by then.
"""

from dataclasses import dataclass
from pathlib import Path

from hsoftmax.scoring.formats import OutputFormat, RecordSchema
from hsoftmax.scoring.task import Task


@dataclass(frozen=True)
class OutputSpec:
    """The destination of finished shards, and the form of their records.

    Attributes:
        path: a file; without an extension, a folder with a file for each shard
        model: the bundle's name, for the summary
        separate_errors: error records go into a file beside the output
    """

    path: Path
    format: OutputFormat
    record_schema: RecordSchema
    task: Task
    model: str
    separate_errors: bool = False

    @property
    def is_folder(self) -> bool:
        """True if the output's name has no extension."""
        return not self.path.suffix

    @property
    def has_error_file(self) -> bool:
        """True if error records go into a file beside the output."""
        return self.separate_errors or not self.format.holds_errors
