"""Which format a path is, by its extension alone; Arrow's library is imported if it is needed."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

from hsoftmax.scoring.bundle_info import Facts
from hsoftmax.scoring.errors import CallError, ScoringError
from hsoftmax.scoring.results import Records

from . import csv, ndjson, npy
from .columns import Columns
from .reader import Source
from .record_schema import Layout

Encode = Callable[[Records, Layout], bytes]
Assemble = Callable[[Iterable[Path], BinaryIO, Layout], None]

EXTENSIONS = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".csv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".npy": "npy",
}


@dataclass(frozen=True, slots=True)
class Format:
    """How records are written: a chunk's bytes, and shards put together.

    Attributes:
        columnar: every record has the same fields of the same kind
        mute: it has no room for what is wrong with a row
    """

    name: str
    encode: Encode
    assemble: Assemble
    columnar: bool = True
    mute: bool = False


def find_format(path: Path) -> Format:
    """The format of an output. Raises CallError for an extension that is none."""
    match _name(path):
        case "ndjson":
            return Format("ndjson", ndjson.encode, ndjson.assemble, columnar=False)
        case "csv":
            return Format("csv", csv.encode, csv.assemble)
        case "npy":
            return Format("npy", npy.encode, npy.assemble, mute=True)
        case name:
            expect_arrow(name)
            from . import arrow_writer

            parquet = name == "parquet"
            put = arrow_writer.assemble_parquet if parquet else arrow_writer.assemble_arrow
            return Format(name, arrow_writer.encode, put)


def find_inputs(path: Path) -> tuple[Path, ...]:
    """The file, or the files of a folder by name, all of one format. Raises CallError."""
    if not path.is_dir():
        if not path.is_file():
            raise CallError(f"{path}: expected a file or a folder, got none")
        _name(path)
        return (path,)
    found = sorted(p for p in path.iterdir() if p.is_file() and p.suffix in EXTENSIONS)
    if not found:
        raise CallError(f"{path}: expected files ending in {_known()}, got none")
    if len(kinds := sorted({EXTENSIONS[p.suffix] for p in found})) > 1:
        raise CallError(f"{path}: expected files of one format, got {' and '.join(kinds)}")
    return tuple(found)


def open_inputs(
    files: Sequence[Path], columns: Columns, facts: Facts, *, labelled: bool = False
) -> Source:
    """The source of rows. Raises CallError where a file does not fit its name or the bundle."""
    match name := _name(files[0]):
        case "ndjson":
            return ndjson.open_source(files, columns, facts)
        case "csv":
            return csv.open_source(files, columns, facts, labelled=labelled)
        case "npy":
            return npy.open_source(files, columns, facts)
        case _:
            expect_arrow(name)
            from . import arrow_reader

            return arrow_reader.open_source(files, columns, facts)


def recognise(files: Sequence[Path], columns: Columns) -> Columns:
    """The columns where rows may be named by `custom_id`, or be requests with a `body`.

    Raises CallError where the first file is not what its name says.
    """
    match name := _name(files[0]):
        case "ndjson":
            return ndjson.recognised(files[0], columns)
        case "csv":
            return csv.recognised(files[0], columns)
        case "npy":
            return npy.recognised(files[0], columns)
        case _:
            expect_arrow(name)
            from . import arrow_reader

            return arrow_reader.recognised(files[0], columns)


def expect_arrow(name: str) -> None:
    """Raise ScoringError unless what reads and writes this format is installed."""
    if find_spec("pyarrow") is None:
        raise ScoringError(
            f"{name}: expected the package pyarrow, which is not installed: pip install '.[arrow]'"
        )


def _name(path: Path) -> str:
    try:
        return EXTENSIONS[path.suffix]
    except KeyError:
        raise CallError(f"{path}: expected a name ending in {_known()}") from None


def _known() -> str:
    return ", ".join(EXTENSIONS)
