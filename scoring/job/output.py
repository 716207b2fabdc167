"""What the end of a job needs to know, apart from rows and bundle: both may be gone by then."""

from dataclasses import dataclass
from pathlib import Path

from hsoftmax.scoring.formats import Format, Layout
from hsoftmax.scoring.task import Task


@dataclass(frozen=True)
class Delivery:
    """Where finished shards go, and as what.

    Attributes:
        model: the bundle's name
        apart: error records are in the ledger, and go into a file beside the output
    """

    output: Path
    format: Format
    layout: Layout
    task: Task
    model: str
    apart: bool = False

    @property
    def folder(self) -> bool:
        """An output whose name has no extension."""
        return not self.output.suffix

    @property
    def errors_beside(self) -> bool:
        return self.apart or self.format.mute
