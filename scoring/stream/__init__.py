"""Rows in, records out, as they come: order kept, memory bounded, an end that says so."""

from .ndjson import LineSplitter, LineStreamReader, LineStreamWriter
from .pipeline import AsyncGraphRunner, StreamReader, StreamSpec, StreamWriter, score_stream
from .summary import StreamTotals

__all__ = [
    "AsyncGraphRunner",
    "LineSplitter",
    "LineStreamReader",
    "LineStreamWriter",
    "StreamReader",
    "StreamSpec",
    "StreamTotals",
    "StreamWriter",
    "score_stream",
]
