"""Makes a job's shards on all nodes of a Ray cluster, which share the output's folder.

    driver ─ ranges ─> Ray Data ─ map_batches ─> ShardActor, on each node ─ temporary file ─┐
    checkpoint <─ in order ─ counts, sums, SHA-256 <────────────────────────────────────────┘

No row passes through Ray, only the beginning of a shard and its outcome. The driver alone renames
and records a shard, so it is the same job on any number of machines.
"""

from .driver import RayShardProducer
from .messages import RayJob

__all__ = [
    "RayJob",
    "RayShardProducer",
]
