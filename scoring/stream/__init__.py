"""Scores a stream of rows into a stream of records.

Order is kept, memory is bounded, and the last record is a summary that proves the stream is whole.
"""

from .ndjson_records import LineStreamWriter
from .ndjson_rows import LineSplitter, LineStreamReader
from .pipeline import (
    AsyncGraphRunner,
    RunInIdle,
    StreamReader,
    StreamSpec,
    StreamWriter,
    score_stream,
)
from .summary import StreamTotals

__all__ = [
    "AsyncGraphRunner",
    "LineSplitter",
    "LineStreamReader",
    "LineStreamWriter",
    "RunInIdle",
    "StreamReader",
    "StreamSpec",
    "StreamTotals",
    "StreamWriter",
    "score_stream",
]
