"""Ray Data: sends shard ranges through an actor on each node, and yields their outcomes."""

from collections.abc import Generator

import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, from_items

from hsoftmax.scoring import ScoringError, ShardStart

from .actor import ShardActor, find_shard_ranges
from .messages import RayJob, ShardOutcome, outcomes_of


def shard_outcomes(
    job: RayJob, start: ShardStart, threads: int | None
) -> Generator[ShardOutcome, None, None]:
    """Yields the outcome of each shard from `start` to the end, in the order in which they finish.

    `threads` is the number of threads on each node; None is one for each CPU.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # a range is sent as soon as it is found
    context.scheduling_strategy = "SPREAD"
    outcomes = _make_shards(_find_ranges(job, start), job, threads)
    for rows in outcomes.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
        yield from outcomes_of(rows)


def _find_ranges(job: RayJob, start: ShardStart) -> Dataset:
    """Finds the ranges on this machine, which has the input open already."""
    return from_items([0]).map_batches(
        find_shard_ranges,
        fn_kwargs={"job": job, "start": start},
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=0,
        label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
    )


def _make_shards(ranges: Dataset, job: RayJob, threads: int | None) -> Dataset:
    """Makes shards in an actor on each node; each of its threads makes one at a time."""
    node_cpus = _node_cpus()
    threads = threads or max(1, int(min(node_cpus)))
    return ranges.map_batches(
        ShardActor,
        fn_constructor_args=(job,),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(
            size=len(node_cpus),
            max_tasks_in_flight_per_actor=2 * threads,
            max_concurrent_calls_per_actor=threads,
            enable_true_multi_threading=True,
        ),
        # Half of a node, so that another actor fits on it if the first actor's node is lost.
        num_cpus=min(node_cpus) / 2,
    )


def _node_cpus() -> list[float]:
    """Returns the CPUs of each node. Raises ScoringError if there are none."""
    counts = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    if not any(counts):
        raise ScoringError("ray: expected a cluster with CPUs, got none")
    return [count for count in counts if count]
