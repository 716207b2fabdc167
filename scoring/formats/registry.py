"""Chooses the format of a path by its extension. pyarrow is imported only if a path needs it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hsoftmax.scoring.bundle_info import BundleInfo
from hsoftmax.scoring.errors import CallError, ScoringError
from hsoftmax.scoring.results import RowResults

from . import csv, ndjson, npy, text
from .columns import Columns
from .files import GZIP, extension_of
from .pyarrow_check import has_pyarrow
from .reader import RowReader
from .record_schema import RecordSchema
from .signatures import expect_format

Encode = Callable[[RowResults, RecordSchema], bytes]
Assemble = Callable[[Iterable[Path], BinaryIO, RecordSchema], None]

EXTENSIONS = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".csv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".npy": "npy",
    ".txt": "text",
}
OUTPUT_EXTENSIONS = tuple(extension for extension in EXTENSIONS if extension != ".txt")
_OUTPUT_OF_TEXT = ".ndjson"


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """A format's writer.

    Attributes:
        encode: returns a batch of results as the bytes of a shard
        assemble: writes shards as one file
        columnar: True if every record has the same fields of the same types
        holds_errors: True if a record has room for its row's error
    """

    name: str
    encode: Encode
    assemble: Assemble
    columnar: bool = True
    holds_errors: bool = True


def find_format(path: Path) -> OutputFormat:
    """Returns the format of an output. Raises CallError for an unknown extension."""
    if path.suffix == GZIP:
        raise CallError(f"{path}: expected an output without {GZIP}: compress it afterwards")
    match _format_name(path):
        case "ndjson":
            return OutputFormat("ndjson", ndjson.encode, ndjson.assemble, columnar=False)
        case "csv":
            return OutputFormat("csv", csv.encode, csv.assemble)
        case "text":
            raise CallError(
                f"{path}: expected a name ending in {', '.join(OUTPUT_EXTENSIONS)}, got .txt, "
                "which is a format of input only"
            )
        case "npy":
            return OutputFormat("npy", npy.encode, npy.assemble, holds_errors=False)
        case name:
            _expect_pyarrow(name)
            from . import arrow_writer

            is_parquet = name == "parquet"
            assemble = arrow_writer.assemble_parquet if is_parquet else arrow_writer.assemble_arrow
            return OutputFormat(name, arrow_writer.encode, assemble)


def output_extension(path: Path) -> str:
    """Returns the extension of an output in the format of an input; NDJSON for text."""
    extension = extension_of(path)
    return extension if extension in OUTPUT_EXTENSIONS else _OUTPUT_OF_TEXT


def find_inputs(path: Path) -> tuple[Path, ...]:
    """Returns the file, or the files of a folder and its partitions, in the order of their paths.

    Raises:
        CallError: there is no such file, or the folder's files are not all of one format.
    """
    if not path.is_dir():
        if not path.is_file():
            raise CallError(f"{path}: expected a file or a folder, got none")
        _format_name(path)
        return (path,)
    files = [p for p in _files_below(path) if extension_of(p) in EXTENSIONS]
    rows = [p for p in files if EXTENSIONS[extension_of(p)] != "text"]
    files = rows or files  # a text beside files of rows describes them
    if not files:
        raise CallError(f"{path}: expected files ending in {_known_extensions()}, got none")
    if len(names := sorted({EXTENSIONS[extension_of(p)] for p in files})) > 1:
        raise CallError(f"{path}: expected files of one format, got {' and '.join(names)}")
    return tuple(files)


def _files_below(folder: Path) -> Iterator[Path]:
    """Yields the files of a folder and of its subfolders `<key>=<value>`, as Hive names them."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and "=" in path.name:
            yield from _files_below(path)
        elif path.is_file():
            yield path


def open_inputs(
    files: Sequence[Path], columns: Columns, bundle_info: BundleInfo, *, labelled: bool = False
) -> RowReader:
    """Opens the input files, all of one format.

    Raises:
        CallError: a file is not what its extension says, or does not fit the bundle.
    """
    name = _format_name(files[0])
    for path in files:
        expect_format(path, name)
    match name:
        case "ndjson":
            return ndjson.open_reader(files, columns, bundle_info)
        case "csv":
            return csv.open_reader(files, columns, bundle_info, labelled=labelled)
        case "npy":
            return npy.open_reader(files, columns, bundle_info)
        case "text":
            return text.open_reader(files, bundle_info)
        case _:
            _expect_pyarrow(name)
            from . import arrow_reader

            return arrow_reader.open_reader(files, columns, bundle_info)


def detect_columns(files: Sequence[Path], columns: Columns) -> Columns:
    """Adapts the columns to rows with `custom_id` for the id, or with a `body` as in requests.

    Raises:
        CallError: the first file is not what its extension says.
    """
    name = _format_name(files[0])
    expect_format(files[0], name)
    match name:
        case "ndjson":
            return ndjson.detect_columns(files[0], columns)
        case "csv":
            return csv.detect_columns(files[0], columns)
        case "npy":
            return npy.detect_columns(files[0], columns)
        case "text":
            return columns
        case _:
            _expect_pyarrow(name)
            from . import arrow_reader

            return arrow_reader.detect_columns(files[0], columns)


def _expect_pyarrow(name: str) -> None:
    """Raises ScoringError unless the library that reads and writes this format is installed."""
    if not has_pyarrow():
        raise ScoringError(
            f"{name}: expected the package pyarrow, which is not installed: pip install '.[arrow]'"
        )


def _format_name(path: Path) -> str:
    try:
        return EXTENSIONS[extension_of(path)]
    except KeyError:
        raise CallError(f"{path}: expected a name ending in {_known_extensions()}") from None


def _known_extensions() -> str:
    return ", ".join(EXTENSIONS)
