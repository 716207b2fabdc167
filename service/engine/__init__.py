"""Runs graphs: what waits is batched by lane, bounded, cancelled and expired; see `Engine`."""

from .call import Call, Lane, Outputs, Priority, lane_of
from .engine import INLINE_WORK, Engine
from .scheduler import Bounds

__all__ = [
    "INLINE_WORK",
    "Bounds",
    "Call",
    "Engine",
    "Lane",
    "Outputs",
    "Priority",
    "lane_of",
]
