"""Runs graphs for the routes, the streams and the jobs: small calls inline, others in batches."""

from .call import GraphCall, GraphResult, Lane, Priority, lane_of
from .engine import INLINE_MAX_COST, Engine
from .scheduler import QueueLimits

__all__ = [
    "INLINE_MAX_COST",
    "Engine",
    "GraphCall",
    "GraphResult",
    "Lane",
    "Priority",
    "QueueLimits",
    "lane_of",
]
