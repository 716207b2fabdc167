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

from hsoftmax.scoring.bundle_info import Facts
from hsoftmax.scoring.errors import CallError, Flaw
from hsoftmax.scoring.results import Records
from hsoftmax.scoring.row_batch import Id, Parsed, Reading, Rows, Target, flawed, gather
from hsoftmax.scoring.task import Form, Kind

from . import ndjson
from .columns import Columns, input_columns, standing_for_id
from .line_reader import Line, Lined, LineReader, all_lines
from .reader import Block, named
from .record_schema import Layout, values

BLANK = Flaw("invalid_query", "expected a row, got a blank line")

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
class CsvSource(Lined):
    """CSV files, each with its own header; `labelled` where targets are labels, even "17"."""

    files: tuple[Path, ...]
    lines: LineReader
    headers: Sequence[Header]
    form: Form
    labelled: bool
    id_kind: Kind = "string"
    total: int | None = None

    def parse(self, block: Block, reading: Reading) -> Rows:
        header = self.headers[block.start.file]
        parsed = [_row(line, header, self.labelled) for line in block.content]
        return gather(parsed, block.start.line, reading)

    def ids(self) -> Iterator[Sequence[Id]]:
        for file, header in zip(self.files, self.headers, strict=True):
            for lines in all_lines([file], headers=1):
                yield [_id(line, header) for line in lines]


def open_source(
    files: Sequence[Path], columns: Columns, facts: Facts, *, labelled: bool = False
) -> CsvSource:
    """Raises CallError where a file has no header, or no column for the input."""
    names = [_names(path) for path in files]
    headers = [_header(found, columns, facts.hidden_size) for found in names]
    form = named(names[0], columns.target, columns.targets)
    return CsvSource(tuple(files), LineReader(files, headers=1), headers, form, labelled)


def recognised(path: Path, columns: Columns) -> Columns:
    """`custom_id` for the id, if that is what the header has."""
    return standing_for_id(columns, _names(path))


def _names(path: Path) -> list[str]:
    with path.open("rb") as file:
        line = file.readline().removeprefix(b"\xef\xbb\xbf")
    try:
        names = _cells(line.rstrip(b"\r\n"))
    except Flaw as flaw:
        raise CallError(f"{path}: header: {flaw}") from None
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


def _row(line: Line, header: Header, labelled: bool) -> Parsed:
    if not line:
        return flawed(BLANK if line is not None else ndjson.TOO_LONG)
    id = None
    try:
        cells = _cells(line)
        if len(cells) != header.width:
            raise Flaw("invalid_query", f"expected {header.width} cells, got {len(cells)}")
        id = cells[header.id] if header.id is not None else None
        targets, listed = _row_targets(cells, header, labelled)
        sequence = cells[header.sequence] if header.sequence is not None else None
        return Parsed(id, _row_input(cells, header), targets, listed, sequence)
    except Flaw as flaw:
        return flawed(flaw, id)


def _id(line: Line, header: Header) -> Id:
    try:
        cells = _cells(line or b"")
    except Flaw:
        return None
    return cells[header.id] if header.id is not None and len(cells) == header.width else None


def _cells(line: bytes) -> list[str]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Flaw("invalid_query", f"expected UTF-8, got byte {error.start} that is not") from None
    if '"' not in text:
        return text.split(",")
    try:
        return next(csv.reader([text], strict=True))
    except (csv.Error, StopIteration) as error:
        raise Flaw("invalid_query", f"expected cells of CSV, got: {error}") from None


def _row_input(cells: Sequence[str], header: Header) -> Sequence[float]:
    if len(header.input) == 1 and cells[header.input[0]].lstrip().startswith("["):
        try:
            return _NUMBERS.decode(cells[header.input[0]])
        except (msgspec.DecodeError, RecursionError) as error:
            raise Flaw("invalid_query", f"input: expected a list of numbers: {error}") from None
    try:
        return [float(cells[i]) for i in header.input]
    except ValueError as error:
        raise Flaw("invalid_query", f"input: expected numbers: {error}") from None


def _row_targets(
    cells: Sequence[str], header: Header, labelled: bool
) -> tuple[Sequence[Target] | None, bool]:
    if header.target is not None:
        cell = cells[header.target]
        return (None if cell == "" else (_target(cell, labelled),)), False
    if header.targets is None:
        return None, False
    try:
        return _TARGETS.decode(cells[header.targets]), True
    except (msgspec.DecodeError, RecursionError):
        raise Flaw("invalid_query", "targets: expected a JSON list in the cell") from None


def _target(cell: str, labelled: bool) -> Target:
    if labelled or len(cell) > 18:
        return cell
    try:
        return int(cell)
    except ValueError:
        return cell


# --- out ----------------------------------------------------------------------------------------


def encode(records: Records, layout: Layout) -> bytes:
    """One line a record, without the header."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    columns = (map(_cell, values(records.columns[f.name])) for f in layout.fields)
    scored = zip(records.scored.tolist(), *columns, strict=True) if records.columns else iter(())
    blanks = [""] * len(layout.fields)
    for i in range(len(records)):
        id = _cell(records.ids[i])
        if (flaw := records.flaws.get(i)) is not None:
            writer.writerow([id, *blanks, records.lines[i], str(flaw), flaw.code])
        else:
            _, *cells = next(scored)
            writer.writerow([id, *cells, *[""] * 3 * layout.faults])
    return text.getvalue().encode("utf-8", "replace")


def assemble(shards: Iterable[Path], to: BinaryIO, layout: Layout) -> None:
    """The header, and the shards one after another."""
    faults = ["line", "error", "code"] if layout.faults else []
    names = chain([layout.id_name], (f.name for f in layout.fields), faults)
    to.write(",".join(names).encode() + b"\n")
    ndjson.assemble(shards, to, layout)


def _cell(value: Any) -> str:  # noqa: ANN401  whatever a column holds
    if isinstance(value, str):
        return value
    text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    return "" if text == "null" else text
