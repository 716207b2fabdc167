"""Formats by extension: rows in, records out."""

from .columns import Columns, parse_columns
from .layout import Layout
from .registry import EXTENSIONS, Format, find_format, find_inputs, open_inputs
from .source import Block, Position, Source

__all__ = [
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
]
