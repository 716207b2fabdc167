"""Ray Data: shards to be made, through an actor on each node, and what became of them."""

from collections.abc import Generator

import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, from_items

from hsoftmax.scoring import ScoringError, ShardStart

from .actor import ShardActor, find_shard_ranges
from .messages import RayJob, ShardOutcome, outcomes_of


def shard_outcomes(
    work: RayJob, start: ShardStart, threads: int | None
) -> Generator[ShardOutcome, None, None]:
    """What becomes of each shard from here to the end, as it comes; `threads` are a node's."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # a cut goes out as soon as it is found
    context.scheduling_strategy = "SPREAD"
    made = _made(_found(work, start), work, threads)
    for rows in made.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
        yield from outcomes_of(rows)


def _found(work: RayJob, start: ShardStart) -> Dataset:
    """The cuts, found on this machine, which has the input open already."""
    return from_items([0]).map_batches(
        find_shard_ranges,
        fn_kwargs={"work": work, "start": start},
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=0,
        label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
    )


def _made(shard_ranges: Dataset, work: RayJob, threads: int | None) -> Dataset:
    """An actor on each node, which makes a shard at a time on each of its threads."""
    nodes = _cpus()
    at_once = threads or max(1, int(min(nodes)))
    return shard_ranges.map_batches(
        ShardActor,
        fn_constructor_args=(work,),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(
            size=len(nodes),
            max_tasks_in_flight_per_actor=2 * at_once,
            max_concurrent_calls_per_actor=at_once,
            enable_true_multi_threading=True,
        ),
        # Half of a node, so that there is room for another where the first one's node is gone.
        num_cpus=min(nodes) / 2,
    )


def _cpus() -> list[float]:
    """How many each node has to give. Raises ScoringError where there are none."""
    counts = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    if not any(counts):
        raise ScoringError("ray: expected a cluster with CPUs, got none")
    return [count for count in counts if count]
