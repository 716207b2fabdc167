"""NDJSON: one JSON object a line, in and out."""

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgspec
import orjson

from hsoftmax.scoring.bundle_info import BundleInfo
from hsoftmax.scoring.errors import RowError
from hsoftmax.scoring.results import RowResults
from hsoftmax.scoring.row_batch import (
    ParsedRow,
    RowBatch,
    RowId,
    RowRequirements,
    build_row_batch,
    failed_row,
)
from hsoftmax.scoring.task import TargetShape, ValueKind

from .columns import Columns, id_fallback_column
from .line_reader import MAX_LINE_BYTES, Line, LineBasedReader, LineReader, all_lines
from .reader import RawBatch
from .record_schema import RecordSchema, values

BLANK = RowError("invalid_json", "expected a JSON object, got a blank line")
TOO_DEEP = RowError("invalid_json", "expected a JSON object, got one that is nested too deeply")
TOO_LONG = RowError("too_large", f"expected a line of at most {MAX_LINE_BYTES} bytes, got more")

_MARK = b"\xef\xbb\xbf"  # of byte order, which some programs write before UTF-8
_NOT_FINITE = re.compile(rb"\b(?:NaN|Infinity)\b")
_FIRST_ROWS = 100  # looked at for how rows name their targets
_KINDS = {"float": "a number", "int": "an integer", "str": "a string", "array": "a list",
          "bool": "a boolean", "object": "an object", "null": "null"}  # fmt: skip
_EXPECTED = re.compile(r"Expected `(?P<wanted>[^`]+)`, got `(?P<got>[^`]+)`")
_BEYOND = re.compile(r"Expected `int` [<>]= ")
_PLACE = re.compile(r" - at `\$\.?(?P<path>[^`]*)`")


# --- in -----------------------------------------------------------------------------------------


@dataclass
class NdjsonReader(LineBasedReader):
    """Files of JSON lines."""

    files: tuple[Path, ...]
    lines: LineReader
    decoder: "Decoder"
    target_shape: TargetShape
    id_kind: ValueKind = "string"
    total: int | None = None

    def parse(self, raw_batch: RawBatch, requirements: RowRequirements) -> RowBatch:
        return self.decoder.rows(raw_batch.content, raw_batch.start.line, requirements)

    def ids(self) -> Iterator[Sequence[RowId]]:
        for lines in all_lines(self.files, headers=0):
            yield [self.decoder.id(line) for line in lines]


def open_reader(files: Sequence[Path], columns: Columns, bundle_info: BundleInfo) -> NdjsonReader:
    lines, decoder = LineReader(files, headers=0), Decoder(columns)
    first = lines.read(lines.begin(), _FIRST_ROWS)
    target_shape = decoder.target_shape([] if first is None else first.content)
    return NdjsonReader(tuple(files), lines, decoder, target_shape)


def detect_columns(path: Path, columns: Columns) -> Columns:
    """`custom_id` for the id, alone or beside a `body`, if that is what the first row has."""
    with closing(LineReader([path], headers=0)) as lines:
        first = lines.read(lines.begin(), _FIRST_ROWS)
    for line in [] if first is None else first.content:
        try:
            row = msgspec.json.decode((line or b"").removeprefix(_MARK))
        except (msgspec.DecodeError, RecursionError):
            continue
        if isinstance(row, dict):
            body = "body" if isinstance(row.get("body"), dict) and "input" not in row else ""
            return replace(id_fallback_column(columns, row), body=body)
    return columns


_LARGEST = 2**63 - 1  # of what every format can write
Integer = Annotated[int, msgspec.Meta(ge=-_LARGEST, le=_LARGEST)]


_FIELDS: dict[str, Any] = {
    "id": str | Integer | None,
    "target": Integer | str | None,
    "targets": list[Integer | str] | None,
    "sequence": str | Integer | None,
}


@dataclass(frozen=True)
class Decoder:
    """Lines to rows; `columns` names the fields, and others are not looked at."""

    columns: Columns
    _typed: msgspec.json.Decoder[Any] = field(init=False)
    _id: msgspec.json.Decoder[Any] = field(init=False)

    def __post_init__(self) -> None:
        inputs = self.columns.input or ("input",)
        kind: Any = list[float] if len(inputs) == 1 else float
        fields = [(f"input{i}", kind) for i in range(len(inputs))]
        names = {f"input{i}": name for i, name in enumerate(inputs)}
        names |= {role: getattr(self.columns, role) for role in _FIELDS}
        others = [(role, kind, None) for role, kind in _FIELDS.items()]
        row = msgspec.defstruct("Row", [*fields, *others], rename=names)
        alone = msgspec.defstruct(
            "Identified", [("id", _FIELDS["id"], None)], rename={"id": self.columns.id}
        )
        if self.columns.body:
            row = msgspec.defstruct(
                "Request",
                [("row", row)],
                bases=(alone,),
                rename={"row": self.columns.body},
                kw_only=True,
            )
        object.__setattr__(self, "_typed", msgspec.json.Decoder(row))
        object.__setattr__(self, "_id", msgspec.json.Decoder(alone))

    def id(self, line: Line) -> RowId:
        """Of one line, without a look at what else is in it."""
        try:
            found: RowId = self._id.decode((line or b"").removeprefix(_MARK)).id
        except (msgspec.DecodeError, RecursionError):
            found = self._row((line or b"").removeprefix(_MARK)).id
        return found

    def rows(
        self, lines: Sequence[Line], first_line: int, requirements: RowRequirements
    ) -> RowBatch:
        """The checked rows of these lines."""
        if first_line == 1 and lines and lines[0] is not None:
            lines = [lines[0].removeprefix(_MARK), *lines[1:]]
        return build_row_batch([self._row(line) for line in lines], first_line, requirements)

    def target_shape(self, lines: Sequence[Line]) -> TargetShape:
        """As the first row that can be read shows it."""
        return self.first_form(lines) or "one"

    def first_form(self, lines: Sequence[Line]) -> TargetShape | None:
        """The same; None if none can be read."""
        for row in map(self._row, lines):
            if row.row_error is None:
                return "none" if row.targets is None else "many" if row.listed else "one"
        return None

    def _row(self, line: Line) -> ParsedRow:
        if not line:
            return failed_row(BLANK if line is not None else TOO_LONG)
        try:
            found = self._typed.decode(line)
            if self.columns.body:
                found.row.id = found.id
                found = found.row
            return _parsed(found, len(self.columns.input))
        except msgspec.ValidationError as error:
            return self._flawed(line, _sentence(str(error)))
        except (msgspec.DecodeError, RecursionError):
            return self._flawed(line, None)

    def _flawed(self, line: bytes, sentence: str | None) -> ParsedRow:
        """The wrong line's error, with its id where that can be read."""
        try:
            row = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            return _unreadable(line, str(error), self.columns.id)
        except RecursionError:
            return failed_row(TOO_DEEP)
        id = row.get(self.columns.id) if isinstance(row, dict) else None
        return failed_row(RowError("invalid_query", sentence or "expected a row"), known_id(id))


def known_id(id: object) -> RowId:
    """The id, if it is one that could be given back."""
    if isinstance(id, int):
        return id if not isinstance(id, bool) and abs(id) <= _LARGEST else None
    return id if isinstance(id, str) else None


def _parsed(row: Any, width: int) -> ParsedRow:  # noqa: ANN401  a struct made at run time
    numbers = row.input0 if width <= 1 else [getattr(row, f"input{i}") for i in range(width)]
    if row.target is None:
        return ParsedRow(row.id, numbers, row.targets, row.targets is not None, row.sequence)
    if row.targets is not None:
        return failed_row(RowError("invalid_query", "expected target or targets, got both"), row.id)
    return ParsedRow(row.id, numbers, (row.target,), False, row.sequence)


def _unreadable(line: bytes, reason: str, id_field: str) -> ParsedRow:
    """Not JSON; or JSON but for NaN and infinity, which many programs write."""
    if not line.strip():
        return failed_row(BLANK)
    if _NOT_FINITE.search(line) or "out of range" in reason:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            row_error = RowError(
                "invalid_query",
                "input: expected finite numbers, got NaN, infinity or one too large",
            )
            return failed_row(row_error, known_id(row.get(id_field)))
    reason = reason.removeprefix("JSON is malformed: ")
    reason = "it breaks off" if reason == "Input data was truncated" else reason
    return failed_row(RowError("invalid_json", f"expected JSON, which this is not: {reason}"))


def _sentence(message: str) -> str:
    place = found["path"] if (found := _PLACE.search(message)) else ""
    if expected := _EXPECTED.search(message):
        kinds = [_KINDS.get(kind, kind) for kind in expected["wanted"].split(" | ")]
        got = _KINDS.get(expected["got"], expected["got"])
        return f"{place or 'row'}: expected {' or '.join(kinds)}, got {got}"
    if missing := re.search(r"missing required field `([^`]+)`", message):
        return f"{missing[1]}: expected a value, got none"
    if _BEYOND.match(message):
        return f"{place}: expected an integer from {-_LARGEST} to {_LARGEST}, got one beyond"
    if message.startswith("Number out of range"):
        return f"{place or 'row'}: expected a finite number, got one beyond float64"
    return f"{place or 'row'}: {message[:1].lower()}{_PLACE.sub('', message)[1:]}"


# --- out ----------------------------------------------------------------------------------------


def encode(results: RowResults, record_schema: RecordSchema) -> bytes:
    """One line a record."""
    option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
    name, ids = record_schema.id_name, results.ids
    row_errors = error_lines(results, name) if results.row_errors else {}
    lines = list(map(row_errors.get, range(len(results)))) if row_errors else None
    columns = [values(column) for column in results.columns.values()]
    names = list(results.columns)
    made = (
        orjson.dumps({name: ids[i], **dict(zip(names, values, strict=True))}, option=option)
        for i, *values in zip(results.scored.tolist(), *columns, strict=True)
    )
    if lines is None:
        return b"".join(made)
    return b"".join(next(made) if line is None else line for line in lines)


def error_lines(results: RowResults, id_name: str = "id") -> dict[int, bytes]:
    """The line of each flawed row, by position."""
    return {
        i: orjson.dumps(error_record(results, i, id_name), option=orjson.OPT_APPEND_NEWLINE)
        for i in results.row_errors
    }


def error_record(results: RowResults, position: int, id_name: str = "id") -> dict[str, object]:
    row_error = results.row_errors[position]
    return {"line": results.lines[position], id_name: results.ids[position],
            "error": str(row_error), "code": row_error.code}  # fmt: skip


def assemble(shards: Iterable[Path], to: BinaryIO, record_schema: RecordSchema) -> None:
    """The shards one after another."""
    for shard in shards:
        with shard.open("rb") as part:
            shutil.copyfileobj(part, to, 2**20)
