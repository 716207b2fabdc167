"""Plain text, one text a line: an input format for bundles that take text.

A row has no id and no target. A blank line is an empty text, and a row as every other line.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsoftmax.scoring.bundle_info import BundleInfo
from hsoftmax.scoring.errors import CallError, RowError
from hsoftmax.scoring.requirements import RowId, RowRequirements
from hsoftmax.scoring.row_batch import ParsedRow, RowBatch, build_row_batch, failed_row
from hsoftmax.scoring.task import TargetShape, ValueKind

from .line_reader import LineBasedReader, LineReader, RawLine, all_lines
from .ndjson import TOO_LONG
from .reader import RawBatch


@dataclass
class TextReader(LineBasedReader):
    """Reads files of text lines."""

    files: tuple[Path, ...]
    lines: LineReader
    target_shape: TargetShape = "none"
    id_kind: ValueKind = "string"
    total: int | None = None

    def parse(self, raw_batch: RawBatch, requirements: RowRequirements) -> RowBatch:
        rows = [_parse_row(line) for line in raw_batch.content]
        return build_row_batch(rows, raw_batch.start.line, requirements)

    def ids(self) -> Iterator[Sequence[RowId]]:
        for lines in all_lines(self.files, headers=0):
            yield [None] * len(lines)


def open_reader(files: Sequence[Path], bundle_info: BundleInfo) -> TextReader:
    """Open files of text lines. Raises CallError if the bundle takes no text."""
    if not bundle_info.takes_text:
        raise CallError(
            f"{files[0]}: expected hidden states, as {bundle_info.name} takes no text here, "
            "got text: name it .csv or .ndjson if it has numbers"
        )
    return TextReader(tuple(files), LineReader(files, headers=0))


def _parse_row(line: RawLine) -> ParsedRow:
    if line is None:
        return failed_row(TOO_LONG)
    try:
        return ParsedRow(None, line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return failed_row(
            RowError("invalid_query", f"expected UTF-8, got byte {error.start} that is not")
        )
