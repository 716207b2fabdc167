"""The driver: has shards made on the cluster, and yields them as if they were made here."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

from hsoftmax.scoring import (
    CallError,
    JobSpec,
    Position,
    PositionCallback,
    ScoringError,
    ShardStart,
    Workspace,
    WrittenShard,
)

from .connection import join_cluster
from .dataset import shard_outcomes
from .messages import RayJob, ShardOutcome


@dataclass(frozen=True)
class RayShardProducer:
    """A `ShardProducer` on all nodes of the cluster at `address`, with `threads` on each node."""

    job: RayJob
    address: str | None = None
    threads: int | None = None

    def __call__(
        self, spec: JobSpec, workspace: Workspace, start: ShardStart, report: PositionCallback
    ) -> Generator[WrittenShard, None, None]:
        """Yields the shards. Raises ScoringError if the cluster or a node cannot do the work."""
        for path in workspace.attempts():  # left by a run that was killed
            path.unlink(missing_ok=True)
        with (
            join_cluster(self.address),
            closing(shard_outcomes(self.job, start, self.threads)) as outcomes,
        ):
            shards = (_shard_of(outcome, workspace) for outcome in outcomes)
            end = start.position
            for written in _in_order(shards, start.shard, report):
                end = written.shard.end
                yield written
        _expect_end(spec, end)


def _expect_end(spec: JobSpec, end: Position) -> None:
    """Raises ScoringError unless `end` is the end of the input: no shard may be lost on the way."""
    if spec.reader.skip(end, 1)[1]:
        raise ScoringError(f"input: expected all rows back, got those before line {end.line} of "
                           f"{spec.reader.files[end.file]}")  # fmt: skip


def _shard_of(outcome: ShardOutcome, workspace: Workspace) -> WrittenShard:
    """Returns the shard of an outcome, once this machine sees its file."""
    if outcome.written is None:
        kind = CallError if outcome.exit_code == CallError.exit_code else ScoringError
        raise kind(f"node {outcome.node}: {outcome.error}")
    written = outcome.written.on_this_machine(workspace)
    path = written.temp_path
    size = path.stat().st_size if path.is_file() else None
    if size != written.shard.size:
        got = "none" if size is None else f"{size} bytes"
        raise ScoringError(f"{path}: expected {written.shard.size} bytes from node "
                           f"{outcome.node}, got {got}: OUTPUT has to be where every node sees "
                           "it")  # fmt: skip
    return written


def _in_order(
    shards: Iterable[WrittenShard], first: int, report: PositionCallback
) -> Iterator[WrittenShard]:
    """Yields shards in order, as the checkpoint requires.

    A shard that comes early waits; it counts as finished in `report` all the same.
    """
    waiting: dict[int, WrittenShard] = {}
    for written in shards:
        waiting[written.shard.number] = written
        early = [one.shard for one in waiting.values()]
        end = max(early, key=lambda shard: shard.number).end
        report(sum(shard.rows for shard in early), sum(shard.failed for shard in early), end)
        while first in waiting:
            yield waiting.pop(first)
            first += 1
