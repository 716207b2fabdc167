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

from hsoftmax.scoring.bundle_info import Facts
from hsoftmax.scoring.errors import Flaw
from hsoftmax.scoring.results import Records
from hsoftmax.scoring.row_batch import Id, Parsed, Reading, Rows, flawed, gather
from hsoftmax.scoring.task import Form, Kind

from .columns import Columns, standing_for_id
from .line_reader import LONGEST_LINE, Line, Lined, LineReader, all_lines
from .reader import Block
from .record_schema import Layout, values

BLANK = Flaw("invalid_json", "expected a JSON object, got a blank line")
TOO_DEEP = Flaw("invalid_json", "expected a JSON object, got one that is nested too deeply")
TOO_LONG = Flaw("too_large", f"expected a line of at most {LONGEST_LINE} bytes, got more")

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
class NdjsonSource(Lined):
    """Files of JSON lines."""

    files: tuple[Path, ...]
    lines: LineReader
    decoder: "Decoder"
    form: Form
    id_kind: Kind = "string"
    total: int | None = None

    def parse(self, block: Block, reading: Reading) -> Rows:
        return self.decoder.rows(block.content, block.start.line, reading)

    def ids(self) -> Iterator[Sequence[Id]]:
        for lines in all_lines(self.files, headers=0):
            yield [self.decoder.id(line) for line in lines]


def open_source(files: Sequence[Path], columns: Columns, facts: Facts) -> NdjsonSource:
    lines, decoder = LineReader(files, headers=0), Decoder(columns)
    first = lines.read(lines.begin(), _FIRST_ROWS)
    form = decoder.form([] if first is None else first.content)
    return NdjsonSource(tuple(files), lines, decoder, form)


def recognised(path: Path, columns: Columns) -> Columns:
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
            return replace(standing_for_id(columns, row), body=body)
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

    def id(self, line: Line) -> Id:
        """Of one line, without a look at what else is in it."""
        try:
            found: Id = self._id.decode((line or b"").removeprefix(_MARK)).id
        except (msgspec.DecodeError, RecursionError):
            found = self._row((line or b"").removeprefix(_MARK)).id
        return found

    def rows(self, lines: Sequence[Line], first_line: int, reading: Reading) -> Rows:
        """The checked rows of these lines."""
        if first_line == 1 and lines and lines[0] is not None:
            lines = [lines[0].removeprefix(_MARK), *lines[1:]]
        return gather([self._row(line) for line in lines], first_line, reading)

    def form(self, lines: Sequence[Line]) -> Form:
        """As the first row that can be read shows it."""
        return self.first_form(lines) or "one"

    def first_form(self, lines: Sequence[Line]) -> Form | None:
        """The same; None if none can be read."""
        for row in map(self._row, lines):
            if row.flaw is None:
                return "none" if row.targets is None else "many" if row.listed else "one"
        return None

    def _row(self, line: Line) -> Parsed:
        if not line:
            return flawed(BLANK if line is not None else TOO_LONG)
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

    def _flawed(self, line: bytes, sentence: str | None) -> Parsed:
        """The wrong line's error, with its id where that can be read."""
        try:
            row = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            return _unreadable(line, str(error), self.columns.id)
        except RecursionError:
            return flawed(TOO_DEEP)
        id = row.get(self.columns.id) if isinstance(row, dict) else None
        return flawed(Flaw("invalid_query", sentence or "expected a row"), known_id(id))


def known_id(id: object) -> Id:
    """The id, if it is one that could be given back."""
    if isinstance(id, int):
        return id if not isinstance(id, bool) and abs(id) <= _LARGEST else None
    return id if isinstance(id, str) else None


def _parsed(row: Any, width: int) -> Parsed:  # noqa: ANN401  a struct made at run time
    numbers = row.input0 if width <= 1 else [getattr(row, f"input{i}") for i in range(width)]
    if row.target is None:
        return Parsed(row.id, numbers, row.targets, row.targets is not None, row.sequence)
    if row.targets is not None:
        return flawed(Flaw("invalid_query", "expected target or targets, got both"), row.id)
    return Parsed(row.id, numbers, (row.target,), False, row.sequence)


def _unreadable(line: bytes, reason: str, id_field: str) -> Parsed:
    """Not JSON; or JSON but for NaN and infinity, which many programs write."""
    if not line.strip():
        return flawed(BLANK)
    if _NOT_FINITE.search(line) or "out of range" in reason:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            flaw = Flaw(
                "invalid_query",
                "input: expected finite numbers, got NaN, infinity or one too large",
            )
            return flawed(flaw, known_id(row.get(id_field)))
    reason = reason.removeprefix("JSON is malformed: ")
    reason = "it breaks off" if reason == "Input data was truncated" else reason
    return flawed(Flaw("invalid_json", f"expected JSON, which this is not: {reason}"))


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


def encode(records: Records, layout: Layout) -> bytes:
    """One line a record."""
    option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
    name, ids = layout.id_name, records.ids
    flaws = flaw_lines(records, name) if records.flaws else {}
    lines = list(map(flaws.get, range(len(records)))) if flaws else None
    columns = [values(column) for column in records.columns.values()]
    names = list(records.columns)
    made = (
        orjson.dumps({name: ids[i], **dict(zip(names, values, strict=True))}, option=option)
        for i, *values in zip(records.scored.tolist(), *columns, strict=True)
    )
    if lines is None:
        return b"".join(made)
    return b"".join(next(made) if line is None else line for line in lines)


def flaw_lines(records: Records, id_name: str = "id") -> dict[int, bytes]:
    """The line of each flawed row, by position."""
    return {
        i: orjson.dumps(flaw_record(records, i, id_name), option=orjson.OPT_APPEND_NEWLINE)
        for i in records.flaws
    }


def flaw_record(records: Records, position: int, id_name: str = "id") -> dict[str, object]:
    flaw = records.flaws[position]
    return {"line": records.lines[position], id_name: records.ids[position],
            "error": str(flaw), "code": flaw.code}  # fmt: skip


def assemble(shards: Iterable[Path], to: BinaryIO, layout: Layout) -> None:
    """The shards one after another."""
    for shard in shards:
        with shard.open("rb") as part:
            shutil.copyfileobj(part, to, 2**20)
