"""File formats, chosen by extension: they read rows and write records."""

from .columns import CUSTOM_ID, Columns, parse_columns
from .files import extension_of
from .reader import Position, RawBatch, RowReader
from .record_schema import RecordSchema
from .registry import (
    EXTENSIONS,
    OUTPUT_EXTENSIONS,
    OutputFormat,
    detect_columns,
    find_format,
    find_inputs,
    open_inputs,
    output_extension,
)

__all__ = [
    "CUSTOM_ID",
    "EXTENSIONS",
    "OUTPUT_EXTENSIONS",
    "Columns",
    "OutputFormat",
    "Position",
    "RawBatch",
    "RecordSchema",
    "RowReader",
    "detect_columns",
    "extension_of",
    "find_format",
    "find_inputs",
    "open_inputs",
    "output_extension",
    "parse_columns",
]
