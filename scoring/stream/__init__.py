"""Rows in, records out, as they come: order kept, memory bounded, an end that says so."""

from .ndjson import LineIntake, LineOutlet, LineSplitter
from .pipeline import Intake, Outlet, RunAsync, StreamTask, score_stream
from .summary import Totals

__all__ = [
    "Intake",
    "LineIntake",
    "LineOutlet",
    "LineSplitter",
    "Outlet",
    "RunAsync",
    "StreamTask",
    "Totals",
    "score_stream",
]
