"""Scoring on all nodes of a Ray cluster: shards go out, and come back as files that all can see.

    driver ─ cuts ─> Ray Data ─ map_batches ─> Node, an actor on each ─ shard, aside ─┐
    ledger <─ in order ─ counts, sums, SHA-256 <──────────────────────────────────────┘

No row goes through Ray, only where a shard begins and what became of it. The driver alone gives a
shard its name and records it, so that it is one job, wherever its shards were made.
"""

from .driver import RayShardProducer
from .messages import RayJob

__all__ = [
    "RayJob",
    "RayShardProducer",
]
