"""Formats by extension: rows in, records out."""

from .columns import CUSTOM_ID, Columns, parse_columns
from .layout import Layout
from .registry import EXTENSIONS, Format, find_format, find_inputs, open_inputs, recognise
from .source import Block, Position, Source

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
