"""Formats by extension: rows in, records out."""

from .columns import CUSTOM_ID, Columns, parse_columns
from .reader import Block, Position, Source
from .record_schema import Layout
from .registry import EXTENSIONS, Format, find_format, find_inputs, open_inputs, recognise

__all__ = [
    "CUSTOM_ID",
    "EXTENSIONS",
    "Block",
    "Columns",
    "Format",
    "Layout",
    "Position",
    "Source",
    "find_format",
    "find_inputs",
    "open_inputs",
    "parse_columns",
    "recognise",
]
