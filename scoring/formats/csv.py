"""CSV with a header. A row is always one line, so a stray quote breaks one row and not the rest.

Lists are JSON within a cell, in inputs and in outputs.
"""

import csv
import io
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import orjson

from hsoftmax.bundle import UTF8_MARK, other_encoding
from hsoftmax.models.decoder_errors import reason_of
from hsoftmax.scoring.bundle_info import BundleInfo
from hsoftmax.scoring.errors import CallError, RowError
from hsoftmax.scoring.numbers import parse_integer, parse_number, parse_numbers
from hsoftmax.scoring.requirements import RowId, RowRequirements, TargetOrLabel
from hsoftmax.scoring.results import RowResults
from hsoftmax.scoring.row_batch import ParsedRow, RowBatch, build_row_batch, failed_row
from hsoftmax.scoring.task import TargetShape, ValueKind

from . import ndjson
from .columns import Columns, find_inputs, id_fallback_column, text_column
from .files import open_lines
from .line_reader import LineBasedReader, LineReader, RawLine, all_lines, read_line
from .reader import RawBatch, target_shape_of
from .record_schema import RecordSchema, values

BLANK = RowError("invalid_query", "expected a row, got a blank line")

_NUMBERS = msgspec.json.Decoder(list[float])
_TARGETS = msgspec.json.Decoder(list[int | float | str])


# --- input --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CsvHeader:
    """The index of each column in a file's rows, None for a column that is missing.

    Attributes:
        is_text: True if the one input column has texts
    """

    width: int
    input: tuple[int, ...]
    is_text: bool
    id: int | None
    target: int | None
    targets: int | None
    sequence: int | None


@dataclass
class CsvReader(LineBasedReader):
    """Reads CSV files, each with a header of its own.

    Attributes:
        labelled: True if all targets are labels, even those that look like numbers
    """

    files: tuple[Path, ...]
    lines: LineReader
    headers: Sequence[CsvHeader]
    target_shape: TargetShape
    labelled: bool
    id_kind: ValueKind = "string"
    total: int | None = None

    def parse(self, raw_batch: RawBatch, requirements: RowRequirements) -> RowBatch:
        header = self.headers[raw_batch.start.file]
        labels = None if self.labelled else requirements.bundle_info.target_of_label
        rows = [_parse_row(line, header, labels) for line in raw_batch.content]
        return build_row_batch(rows, raw_batch.start.line, requirements)

    def ids(self) -> Iterator[Sequence[RowId]]:
        for file, header in zip(self.files, self.headers, strict=True):
            for lines in all_lines([file], headers=1):
                yield [_parse_id(line, header) for line in lines]


def open_reader(
    files: Sequence[Path], columns: Columns, bundle_info: BundleInfo, *, labelled: bool = False
) -> CsvReader:
    """Opens CSV files. Raises CallError if a file has no header, or no column for the input."""
    names = [_read_names(path) for path in files]
    return CsvReader(
        files=tuple(files),
        lines=LineReader(files, headers=1),
        headers=[_header(of_file, columns, bundle_info) for of_file in names],
        target_shape=target_shape_of(names[0], columns.target, columns.targets),
        labelled=labelled,
    )


def detect_columns(path: Path, columns: Columns) -> Columns:
    """Returns the columns with `custom_id` for the id, if only that one is in the header."""
    return id_fallback_column(columns, _read_names(path))


def _read_names(path: Path) -> list[str]:
    """Reads the column names of a file's header. Raises CallError."""
    with open_lines(path) as file:
        line = (read_line(file)[0] or b"").removeprefix(UTF8_MARK)
    if other := other_encoding(line[:64]):
        raise CallError(f"{path}: expected UTF-8 text, got {other}")
    try:
        names = _split_cells(line.rstrip(b"\r\n"))
    except RowError as row_error:
        raise CallError(f"{path}: header: {row_error}") from None
    if not any(names):
        raise CallError(f"{path}: expected a header, got none")
    return names


def _header(names: Sequence[str], columns: Columns, bundle_info: BundleInfo) -> CsvHeader:
    def index(name: str) -> int | None:
        return names.index(name) if name in names else None

    inputs = find_inputs(columns, names, bundle_info)
    return CsvHeader(
        width=len(names),
        input=tuple(names.index(name) for name in inputs),
        is_text=text_column(columns, names, bundle_info) is not None,
        id=index(columns.id),
        target=index(columns.target),
        targets=index(columns.targets),
        sequence=index(columns.sequence),
    )


def _parse_row(line: RawLine, header: CsvHeader, labels: Container[str] | None) -> ParsedRow:
    """Parses a line. `labels` are those of the bundle; None if all targets are labels."""
    if not line:
        return failed_row(BLANK if line is not None else ndjson.TOO_LONG)
    id = None
    try:
        cells = _split_cells(line)
        if len(cells) != header.width:
            raise RowError("invalid_query", f"expected {header.width} cells, got {len(cells)}")
        id = cells[header.id] if header.id is not None else None
        targets, listed = _parse_targets(cells, header, labels)
        sequence = cells[header.sequence] if header.sequence is not None else None
        return ParsedRow(id, _parse_input(cells, header), targets, listed, sequence)
    except RowError as row_error:
        return failed_row(row_error, id)


def _parse_id(line: RawLine, header: CsvHeader) -> RowId:
    try:
        cells = _split_cells(line or b"")
    except RowError:
        return None
    return cells[header.id] if header.id is not None and len(cells) == header.width else None


def _split_cells(line: bytes) -> list[str]:
    """Splits a line into its cells. Raises RowError."""
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
    except Exception as error:  # the decoder's, of any type
        raise RowError("invalid_query", f"expected cells of CSV, got: {reason_of(error)}") from None


def _parse_input(cells: Sequence[str], header: CsvHeader) -> Sequence[float] | str:
    """Returns the numbers or the text of a row's input. Raises RowError."""
    if header.is_text:
        return cells[header.input[0]]
    if len(header.input) == 1 and cells[header.input[0]].lstrip().startswith("["):
        try:
            return _NUMBERS.decode(cells[header.input[0]])
        except Exception as error:  # the decoder's, of any type
            reason = reason_of(error)
            raise RowError(
                "invalid_query", f"input: expected a list of numbers: {reason}"
            ) from None
    texts = [cells[i] for i in header.input]
    numbers = parse_numbers(texts)
    if numbers is None:
        raise _not_a_number(texts)
    return numbers


def _not_a_number(texts: Sequence[str]) -> RowError:
    """Returns the error of the first of these cells that holds no number."""
    position = next((i for i, text in enumerate(texts) if parse_numbers([text]) is None), 0)
    cell = texts[position].strip()
    got = "an empty cell" if not cell else repr(cell[:60])
    if parse_number(cell) is not None:
        got = f"{cell[:60]}, which is beyond float64"
    return RowError("invalid_query", f"input position {position}: expected a number, got {got}")


def _parse_targets(
    cells: Sequence[str], header: CsvHeader, labels: Container[str] | None
) -> tuple[Sequence[TargetOrLabel] | None, bool]:
    """Returns (targets, True if they are a list). Raises RowError."""
    if header.target is not None:
        cell = cells[header.target]
        return (None if cell == "" else (_parse_target(cell, labels),)), False
    if header.targets is None:
        return None, False
    try:
        return _TARGETS.decode(cells[header.targets]), True
    except Exception:  # the decoder's, of any type
        raise RowError("invalid_query", "targets: expected a JSON list in the cell") from None


def _parse_target(cell: str, labels: Container[str] | None) -> TargetOrLabel:
    """Returns an integer as a number, and other text as a label, unless it is only a number.

    pandas writes a column of integers as 5.0 if one of them is missing. A label "5.0" comes first.
    """
    if labels is None:
        return cell
    integer = parse_integer(cell)
    if integer is not None:
        return integer
    number = None if cell in labels else parse_number(cell)
    return cell if number is None else number


# --- output -------------------------------------------------------------------------------------


def encode(results: RowResults, schema: RecordSchema) -> bytes:
    """Returns one line for each record, without the header."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    columns = (map(_format_cell, values(results.columns[f.name])) for f in schema.fields)
    scored = zip(results.scored.tolist(), *columns, strict=True) if results.columns else iter(())
    blanks = [""] * len(schema.fields)
    for i in range(len(results)):
        id = _format_cell(results.ids[i])
        if (row_error := results.row_errors.get(i)) is not None:
            writer.writerow([id, *blanks, results.lines[i], str(row_error), row_error.code])
        else:
            _, *cells = next(scored)
            writer.writerow([id, *cells, *[""] * 3 * schema.faults])
    return text.getvalue().encode("utf-8", "replace")


def assemble(shards: Iterable[Path], to: BinaryIO, schema: RecordSchema) -> None:
    """Writes the header, then the shards one after another."""
    error_names = ["line", "error", "code"] if schema.faults else []
    names = chain([schema.id_name], (f.name for f in schema.fields), error_names)
    to.write(",".join(names).encode() + b"\n")
    ndjson.assemble(shards, to, schema)


def _format_cell(value: Any) -> str:  # noqa: ANN401  any value of a column
    if isinstance(value, str):
        return value
    text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    return "" if text == "null" else text
