"""NDJSON: one JSON object on each line, for input and output."""

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

from hsoftmax.models.decoder_errors import reason_of
from hsoftmax.scoring.bundle_info import BundleInfo
from hsoftmax.scoring.errors import RowError
from hsoftmax.scoring.requirements import RowId, RowRequirements
from hsoftmax.scoring.results import RowResults
from hsoftmax.scoring.row_batch import ParsedRow, RowBatch, build_row_batch, failed_row
from hsoftmax.scoring.task import TargetShape, ValueKind

from .columns import CUSTOM_ID, Columns, id_fallback_column
from .line_reader import MAX_LINE_BYTES, LineBasedReader, LineReader, RawLine, all_lines
from .reader import RawBatch
from .record_schema import RecordSchema, values

BLANK = RowError("invalid_json", "expected a JSON object, got a blank line")
TOO_DEEP = RowError("invalid_json", "expected a JSON object, got one that is nested too deeply")
TOO_LONG = RowError("too_large", f"expected a line of at most {MAX_LINE_BYTES} bytes, got more")

_NOT_FINITE = re.compile(rb"\b(?:NaN|Infinity)\b")
_SYNTAX = msgspec.json.Decoder(msgspec.Raw)
_MAX_EXPLAINED_BYTES = 2**20  # of a line that is decoded once more for a better message
_MAX_NESTED = 2**17  # lists and objects in the inputs by name of a line
_MAX_PROBED_ROWS = 100  # rows that are read to see how rows name their targets
_KINDS = {"float": "a number", "int": "an integer", "str": "a string", "array": "a list",
          "bool": "a boolean", "object": "an object", "null": "null"}  # fmt: skip
_EXPECTED = re.compile(r"Expected `(?P<expected>[^`]+)`, got `(?P<got>[^`]+)`")
_OUT_OF_RANGE = re.compile(r"Expected `int` [<>]= ")
_JSON_PATH = re.compile(r" - at `\$\.?(?P<path>[^`]*)`")


# --- input --------------------------------------------------------------------------------------


@dataclass
class NdjsonReader(LineBasedReader):
    """Reads files of JSON lines."""

    files: tuple[Path, ...]
    lines: LineReader
    decoder: "RowDecoder"
    target_shape: TargetShape
    id_kind: ValueKind = "string"
    total: int | None = None

    def parse(self, raw_batch: RawBatch, requirements: RowRequirements) -> RowBatch:
        return self.decoder.decode(raw_batch.content, raw_batch.start.line, requirements)

    def ids(self) -> Iterator[Sequence[RowId]]:
        for lines in all_lines(self.files, headers=0):
            yield [self.decoder.decode_id(line) for line in lines]


def open_reader(files: Sequence[Path], columns: Columns, bundle_info: BundleInfo) -> NdjsonReader:
    """Opens files of JSON lines."""
    lines = LineReader(files, headers=0)
    decoder = RowDecoder(columns, bundle_info.takes_text, bundle_info.takes_named)
    first = lines.read(lines.begin(), _MAX_PROBED_ROWS)
    target_shape = decoder.target_shape([] if first is None else first.content)
    return NdjsonReader(tuple(files), lines, decoder, target_shape or "one")


def detect_columns(path: Path, columns: Columns) -> Columns:
    """Returns the columns with `custom_id` for the id, and with a `body`, as the first row has."""
    for line in _first_lines(path):
        fields = _probe_fields(line or b"", columns)
        if fields is not None:
            has_body = fields.get("body", b"").startswith(b"{") and not (
                {"input", _TEXT_FIELD} & fields.keys()
            )
            return replace(id_fallback_column(columns, fields), body="body" if has_body else "")
    return columns


def _first_lines(path: Path) -> Sequence[RawLine]:
    with closing(LineReader([path], headers=0)) as lines:
        first = lines.read(lines.begin(), _MAX_PROBED_ROWS)
    content: Sequence[RawLine] = [] if first is None else first.content
    return content


def _probe_fields(line: bytes, columns: Columns) -> dict[str, bytes] | None:
    """Returns the JSON of the fields that decide about the columns, or None if it is no object.

    Other fields are skipped, as they are when the row is decoded.
    """
    names = sorted({columns.id, CUSTOM_ID, "input", _TEXT_FIELD, "body"})
    fields = {f"field{i}": name for i, name in enumerate(names)}
    probe = msgspec.defstruct(
        "Probe", [(field, msgspec.Raw, msgspec.Raw()) for field in fields], rename=fields
    )
    try:
        row = msgspec.json.decode(line, type=probe)
    except Exception:  # the decoder's, of any type
        return None
    found = {name: bytes(getattr(row, field)) for field, name in fields.items()}
    return {name: value for name, value in found.items() if value}


_MAX_INTEGER = 2**63 - 1  # the largest that every format can write
Integer = Annotated[int, msgspec.Meta(ge=-_MAX_INTEGER, le=_MAX_INTEGER)]


_FIELDS: dict[str, Any] = {
    "id": str | Integer | None,
    "target": Integer | float | str | None,
    "targets": list[Integer | float | str] | None,
    "sequence": str | Integer | None,
}


_TEXT: Any = str | list[str]
_TEXT_FIELD = "text"
_TEXT_DECODER: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    msgspec.defstruct("Text", [(_TEXT_FIELD, _TEXT)])
)


class _WrongText(msgspec.ValidationError):
    """A line whose `text` is no text, or that has neither an input nor a text."""


@dataclass(frozen=True)
class RowDecoder:
    """Decodes lines into rows; `columns` names the fields, and other fields are skipped.

    Unless columns are given, a row without `input` may have its text in `text`.

    Attributes:
        text_first: True if most rows are texts; either kind of row is decoded in any case
        named: True if a row may have the inputs of an encoder by name
    """

    columns: Columns
    text_first: bool = False
    named: bool = False
    _number_decoder: msgspec.json.Decoder[Any] = field(init=False)
    _text_decoder: msgspec.json.Decoder[Any] = field(init=False)
    _named_decoder: msgspec.json.Decoder[Any] = field(init=False)
    _id_decoder: msgspec.json.Decoder[Any] = field(init=False)

    def __post_init__(self) -> None:
        text = (self.columns.text or "input",)
        inputs = self.columns.input or text
        numbers: Any = list[float] if len(inputs) == 1 else float
        self._set_decoder("_number_decoder", self._row_type(inputs, numbers))
        self._set_decoder("_text_decoder", self._text_type(text))
        self._set_decoder("_named_decoder", self._row_type(("input",), dict[str, Any]))
        self._set_decoder("_id_decoder", self._id_type())

    def _set_decoder(self, name: str, kind: Any) -> None:  # noqa: ANN401  a type
        object.__setattr__(self, name, msgspec.json.Decoder(kind))

    def _id_type(self) -> Any:  # noqa: ANN401
        return msgspec.defstruct(
            "Identified", [("id", _FIELDS["id"], None)], rename={"id": self.columns.id}
        )

    def _text_type(self, inputs: Sequence[str]) -> Any:  # noqa: ANN401
        """Returns the type of a line of text, which may be in `text` unless columns are given."""
        others = {getattr(self.columns, role) for role in _FIELDS}
        if self.columns.input or self.columns.text or _TEXT_FIELD in others:
            return self._row_type(inputs, _TEXT)
        # As msgspec.Raw it is no error where it is not read.
        text = (_TEXT_FIELD, msgspec.Raw, msgspec.Raw())
        return self._row_type(inputs, _TEXT | None, default=(None,), more=(text,))

    def _row_type(
        self,
        inputs: Sequence[str],
        kind: Any,  # noqa: ANN401
        *,
        default: tuple[Any, ...] = (),
        more: Sequence[Any] = (),
    ) -> Any:  # noqa: ANN401
        """Returns the type of a line whose fields `inputs` are of this type."""
        fields = [(f"input{i}", kind, *default) for i in range(len(inputs))]
        names = {f"input{i}": name for i, name in enumerate(inputs)}
        names |= {role: getattr(self.columns, role) for role in _FIELDS}
        others = [(role, kind, None) for role, kind in _FIELDS.items()]
        row = msgspec.defstruct("Row", [*fields, *others, *more], rename=names)
        if self.columns.body:
            row = msgspec.defstruct(
                "Request",
                [("row", row)],
                bases=(self._id_type(),),
                rename={"row": self.columns.body},
                kw_only=True,
            )
        return row

    def decode(
        self, lines: Sequence[RawLine], first_line: int, requirements: RowRequirements
    ) -> RowBatch:
        """Decodes and checks lines, of which the first has the number `first_line`."""
        return build_row_batch([self._row(line) for line in lines], first_line, requirements)

    def decode_id(self, line: RawLine) -> RowId:
        """Decodes the id of a line, without decoding the rest of it unless that fails."""
        try:
            id: RowId = self._id_decoder.decode(line or b"").id
        except Exception:  # the decoder's, of any type
            id = self._row(line).id
        return id

    def target_shape(self, lines: Sequence[RawLine]) -> TargetShape | None:
        """Returns the target shape of the first readable row, or None if there is no such row."""
        for row in map(self._row, lines):
            if row.row_error is None:
                return "none" if row.targets is None else "many" if row.listed else "one"
        return None

    def _row(self, line: RawLine) -> ParsedRow:
        if not line:
            return failed_row(BLANK if line is not None else TOO_LONG)
        of_numbers = of_text = ""
        for decoder in self._decoders(line):
            try:
                row = self._decode_row(decoder, line)
            except _WrongText as error:
                of_text = _validation_message(str(error))
            except msgspec.ValidationError as error:
                if decoder is self._number_decoder:  # its message names numbers, the usual input
                    of_numbers = _validation_message(str(error))
            except Exception:  # the decoder's, of any type
                return self._failed_row(line, None)
            else:
                width = len(self.columns.input) if decoder is self._number_decoder else 1
                return _parsed_row(row, width)
        return self._failed_row(line, of_text or of_numbers)

    def _decode_row(self, decoder: msgspec.json.Decoder[Any], line: bytes) -> Any:  # noqa: ANN401
        """Returns the struct of a line, with its text in place of `input`.

        Raises:
            msgspec.ValidationError: the line is not of this kind.
            _WrongText: it has a text in `text` that is none, or no input at all.
        """
        row = decoder.decode(line)
        if self.columns.body:
            row.row.id = row.id
            row = row.row
        if row.input0 is None:
            row.input0 = self._text_of(bytes(getattr(row, _TEXT_FIELD)))
        return row

    def _text_of(self, content: bytes) -> Any:  # noqa: ANN401
        """Returns the text or the words in the JSON of a field `text`."""
        if not content and self.text_first:
            raise _WrongText("Object missing required field `input or text`")
        if not content:  # the error about numbers says it
            raise msgspec.ValidationError("Object missing required field `input`")
        try:
            return _TEXT_DECODER.decode(b'{"text":' + content + b"}").text
        except msgspec.ValidationError as error:
            raise _WrongText(str(error)) from None

    def _decoders(self, line: bytes) -> Iterator[msgspec.json.Decoder[Any]]:
        """Yields the decoders of each kind of row, the usual one first.

        Inputs by name may be nested, and each list and object takes memory, so their number has a
        bound.
        """
        if self.text_first:
            yield self._text_decoder
        yield self._number_decoder
        if not self.text_first:
            yield self._text_decoder
        if self.named and line.count(b"[") + line.count(b"{") <= _MAX_NESTED:
            yield self._named_decoder

    def _failed_row(self, line: bytes, message: str | None) -> ParsedRow:
        """Returns a failed row, with its id if that can be read.

        The line is checked and its id is read without building its other values: 16 MiB of empty
        lists would take 350 MB.
        """
        try:
            _SYNTAX.decode(line)
        except RecursionError:
            return failed_row(TOO_DEEP)
        except Exception as error:  # the decoder's, of any type
            return _malformed_row(line, reason_of(error), self.columns.id)
        row_error = RowError("invalid_query", message) if message else _not_utf8(line)
        return failed_row(row_error, self._readable_id(line))

    def _readable_id(self, line: bytes) -> RowId:
        try:
            id: RowId = self._id_decoder.decode(line).id
        except Exception:  # the decoder's, of any type
            id = None
        return id


def valid_id(id: object) -> RowId:
    """Returns the id if every format can write it, else None."""
    if isinstance(id, int):
        return id if not isinstance(id, bool) and abs(id) <= _MAX_INTEGER else None
    return id if isinstance(id, str) else None


def _parsed_row(row: Any, width: int) -> ParsedRow:  # noqa: ANN401  a struct defined at run time
    numbers = row.input0 if width <= 1 else [getattr(row, f"input{i}") for i in range(width)]
    if row.target is None:
        return ParsedRow(row.id, numbers, row.targets, row.targets is not None, row.sequence)
    if row.targets is not None:
        return failed_row(RowError("invalid_query", "expected target or targets, got both"), row.id)
    return ParsedRow(row.id, numbers, (row.target,), False, row.sequence)


def _not_utf8(line: bytes) -> RowError:
    """Returns the error of a line of which the syntax is right, but the text of a field is not."""
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"expected JSON in UTF-8, got byte {error.start} that is not"
        return RowError("invalid_json", message)
    return RowError("invalid_json", "expected JSON that can be decoded, got some that cannot")


def _malformed_row(line: bytes, reason: str, id_field: str) -> ParsedRow:
    """Returns the failed row for a line that is not JSON.

    NaN and infinity get a message of their own, because many programs write them.
    """
    if not line.strip():
        return failed_row(BLANK)
    if len(line) <= _MAX_EXPLAINED_BYTES and _NOT_FINITE.search(line):
        try:
            row = json.loads(line)
        except Exception:  # the decoder's, of any type
            row = None
        if isinstance(row, dict):
            row_error = RowError(
                "invalid_query",
                "input: expected finite numbers, got NaN, infinity or one too large",
            )
            return failed_row(row_error, valid_id(row.get(id_field)))
    reason = reason.removeprefix("JSON is malformed: ")
    reason = "it breaks off" if reason == "Input data was truncated" else reason
    return failed_row(RowError("invalid_json", f"expected JSON, which this is not: {reason}"))


def _validation_message(message: str) -> str:
    """Translates msgspec's message into ours."""
    path = match["path"] if (match := _JSON_PATH.search(message)) else ""
    if match := _EXPECTED.search(message):
        names = match["expected"].split(" | ")
        if "int" in names and "float" in names:
            names.remove("float")  # an integer may be written as 5.0
        kinds = [_KINDS.get(name, name) for name in names]
        got = _KINDS.get(match["got"], match["got"])
        return f"{path or 'row'}: expected {' or '.join(kinds)}, got {got}"
    if match := re.search(r"missing required field `([^`]+)`", message):
        return f"{match[1]}: expected a value, got none"
    if _OUT_OF_RANGE.match(message):
        return f"{path}: expected an integer from {-_MAX_INTEGER} to {_MAX_INTEGER}, got one beyond"
    if message.startswith("Number out of range"):
        return f"{path or 'row'}: expected a finite number, got one beyond float64"
    return f"{path or 'row'}: {message[:1].lower()}{_JSON_PATH.sub('', message)[1:]}"


# --- output -------------------------------------------------------------------------------------


def encode(results: RowResults, schema: RecordSchema) -> bytes:
    """Returns one line for each record."""
    option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
    id_name, ids = schema.id_name, results.ids
    columns = [values(column) for column in results.columns.values()]
    names = (id_name, *results.columns)
    ids_of_scored = [ids[i] for i in results.scored.tolist()]
    scored = (
        orjson.dumps(dict(zip(names, row, strict=True)), option=option)
        for row in zip(ids_of_scored, *columns, strict=True)
    )
    if not results.row_errors:
        return b"".join(scored)
    errors = error_lines(results, id_name)
    return b"".join(errors[i] if i in errors else next(scored) for i in range(len(results)))


def error_lines(results: RowResults, id_name: str = "id") -> dict[int, bytes]:
    """Returns the line of each failed row, by position."""
    return {
        i: orjson.dumps(error_record(results, i, id_name), option=orjson.OPT_APPEND_NEWLINE)
        for i in results.row_errors
    }


def error_record(results: RowResults, position: int, id_name: str = "id") -> dict[str, object]:
    """Returns the record of one failed row."""
    row_error = results.row_errors[position]
    return {"line": results.lines[position], id_name: results.ids[position],
            "error": str(row_error), "code": row_error.code}  # fmt: skip


def assemble(shards: Iterable[Path], to: BinaryIO, schema: RecordSchema) -> None:
    """Writes the shards one after another."""
    for shard in shards:
        with shard.open("rb") as part:
            shutil.copyfileobj(part, to, 2**20)
