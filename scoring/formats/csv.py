"""CSV with a header: a row is a line, so that a quote too many costs one row and not the rest.

Lists, in and out, are JSON within a cell.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import orjson

from hsoftmax.scoring.bundle_info import BundleInfo
from hsoftmax.scoring.errors import CallError, RowError
from hsoftmax.scoring.results import RowResults
from hsoftmax.scoring.row_batch import (
    ParsedRow,
    RowBatch,
    RowId,
    RowRequirements,
    TargetOrLabel,
    build_row_batch,
    failed_row,
)
from hsoftmax.scoring.task import TargetShape, ValueKind

from . import ndjson
from .columns import Columns, id_fallback_column, input_columns
from .line_reader import Line, LineBasedReader, LineReader, all_lines
from .reader import RawBatch, target_shape_of
from .record_schema import RecordSchema, values

BLANK = RowError("invalid_query", "expected a row, got a blank line")

_NUMBERS = msgspec.json.Decoder(list[float])
_TARGETS = msgspec.json.Decoder(list[int | str])


# --- in -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Header:
    """Where in a file's rows is what; None for what it has not."""

    width: int
    input: tuple[int, ...]
    id: int | None
    target: int | None
    targets: int | None
    sequence: int | None


@dataclass
class CsvReader(LineBasedReader):
    """CSV files, each with its own header; `labelled` where targets are labels, even "17"."""

    files: tuple[Path, ...]
    lines: LineReader
    headers: Sequence[Header]
    target_shape: TargetShape
    labelled: bool
    id_kind: ValueKind = "string"
    total: int | None = None

    def parse(self, raw_batch: RawBatch, requirements: RowRequirements) -> RowBatch:
        header = self.headers[raw_batch.start.file]
        parsed = [_row(line, header, self.labelled) for line in raw_batch.content]
        return build_row_batch(parsed, raw_batch.start.line, requirements)

    def ids(self) -> Iterator[Sequence[RowId]]:
        for file, header in zip(self.files, self.headers, strict=True):
            for lines in all_lines([file], headers=1):
                yield [_id(line, header) for line in lines]


def open_reader(
    files: Sequence[Path], columns: Columns, bundle_info: BundleInfo, *, labelled: bool = False
) -> CsvReader:
    """Raises CallError where a file has no header, or no column for the input."""
    names = [_names(path) for path in files]
    headers = [_header(found, columns, bundle_info.hidden_size) for found in names]
    target_shape = target_shape_of(names[0], columns.target, columns.targets)
    return CsvReader(tuple(files), LineReader(files, headers=1), headers, target_shape, labelled)


def detect_columns(path: Path, columns: Columns) -> Columns:
    """`custom_id` for the id, if that is what the header has."""
    return id_fallback_column(columns, _names(path))


def _names(path: Path) -> list[str]:
    with path.open("rb") as file:
        line = file.readline().removeprefix(b"\xef\xbb\xbf")
    try:
        names = _cells(line.rstrip(b"\r\n"))
    except RowError as row_error:
        raise CallError(f"{path}: header: {row_error}") from None
    if not any(names):
        raise CallError(f"{path}: expected a header, got none")
    return names


def _header(names: Sequence[str], columns: Columns, width: int) -> Header:
    def place(name: str) -> int | None:
        return names.index(name) if name in names else None

    return Header(
        width=len(names),
        input=tuple(names.index(name) for name in input_columns(columns, names, width)),
        id=place(columns.id),
        target=place(columns.target),
        targets=place(columns.targets),
        sequence=place(columns.sequence),
    )


def _row(line: Line, header: Header, labelled: bool) -> ParsedRow:
    if not line:
        return failed_row(BLANK if line is not None else ndjson.TOO_LONG)
    id = None
    try:
        cells = _cells(line)
        if len(cells) != header.width:
            raise RowError("invalid_query", f"expected {header.width} cells, got {len(cells)}")
        id = cells[header.id] if header.id is not None else None
        targets, listed = _row_targets(cells, header, labelled)
        sequence = cells[header.sequence] if header.sequence is not None else None
        return ParsedRow(id, _row_input(cells, header), targets, listed, sequence)
    except RowError as row_error:
        return failed_row(row_error, id)


def _id(line: Line, header: Header) -> RowId:
    try:
        cells = _cells(line or b"")
    except RowError:
        return None
    return cells[header.id] if header.id is not None and len(cells) == header.width else None


def _cells(line: bytes) -> list[str]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError(
            "invalid_query", f"expected UTF-8, got byte {error.start} that is not"
        ) from None
    if '"' not in text:
        return text.split(",")
    try:
        return next(csv.reader([text], strict=True))
    except (csv.Error, StopIteration) as error:
        raise RowError("invalid_query", f"expected cells of CSV, got: {error}") from None


def _row_input(cells: Sequence[str], header: Header) -> Sequence[float]:
    if len(header.input) == 1 and cells[header.input[0]].lstrip().startswith("["):
        try:
            return _NUMBERS.decode(cells[header.input[0]])
        except (msgspec.DecodeError, RecursionError) as error:
            raise RowError("invalid_query", f"input: expected a list of numbers: {error}") from None
    try:
        return [float(cells[i]) for i in header.input]
    except ValueError as error:
        raise RowError("invalid_query", f"input: expected numbers: {error}") from None


def _row_targets(
    cells: Sequence[str], header: Header, labelled: bool
) -> tuple[Sequence[TargetOrLabel] | None, bool]:
    if header.target is not None:
        cell = cells[header.target]
        return (None if cell == "" else (_target(cell, labelled),)), False
    if header.targets is None:
        return None, False
    try:
        return _TARGETS.decode(cells[header.targets]), True
    except (msgspec.DecodeError, RecursionError):
        raise RowError("invalid_query", "targets: expected a JSON list in the cell") from None


def _target(cell: str, labelled: bool) -> TargetOrLabel:
    if labelled or len(cell) > 18:
        return cell
    try:
        return int(cell)
    except ValueError:
        return cell


# --- out ----------------------------------------------------------------------------------------


def encode(results: RowResults, record_schema: RecordSchema) -> bytes:
    """One line a record, without the header."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    columns = (map(_cell, values(results.columns[f.name])) for f in record_schema.fields)
    scored = zip(results.scored.tolist(), *columns, strict=True) if results.columns else iter(())
    blanks = [""] * len(record_schema.fields)
    for i in range(len(results)):
        id = _cell(results.ids[i])
        if (row_error := results.row_errors.get(i)) is not None:
            writer.writerow([id, *blanks, results.lines[i], str(row_error), row_error.code])
        else:
            _, *cells = next(scored)
            writer.writerow([id, *cells, *[""] * 3 * record_schema.faults])
    return text.getvalue().encode("utf-8", "replace")


def assemble(shards: Iterable[Path], to: BinaryIO, record_schema: RecordSchema) -> None:
    """The header, and the shards one after another."""
    faults = ["line", "error", "code"] if record_schema.faults else []
    names = chain([record_schema.id_name], (f.name for f in record_schema.fields), faults)
    to.write(",".join(names).encode() + b"\n")
    ndjson.assemble(shards, to, record_schema)


def _cell(value: Any) -> str:  # noqa: ANN401  whatever a column holds
    if isinstance(value, str):
        return value
    text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    return "" if text == "null" else text
