"""The driver: has shards made elsewhere, and hands them on as if they had been made here."""

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
    """A `Make` on all nodes of the cluster at `address`, with `threads` on each."""

    work: RayJob
    address: str | None = None
    threads: int | None = None

    def __call__(
        self, spec: JobSpec, workspace: Workspace, start: ShardStart, report: PositionCallback
    ) -> Generator[WrittenShard, None, None]:
        """Raises ScoringError where the cluster, or one of its nodes, cannot do the work."""
        for path in workspace.attempts():  # of a run that was killed
            path.unlink(missing_ok=True)
        with (
            join_cluster(self.address),
            closing(shard_outcomes(self.work, start, self.threads)) as came,
        ):
            made = (_written(outcome, workspace) for outcome in came)
            end = start.position
            for written in _in_order(made, start.shard, report):
                end = written.shard.end
                yield written
        _expect_end(spec, end)


def _expect_end(spec: JobSpec, end: Position) -> None:
    """However many machines were at it, the last row that came is the input's last."""
    if spec.reader.skip(end, 1)[1]:
        raise ScoringError(f"input: expected all rows back, got those before line {end.line} of "
                           f"{spec.reader.files[end.file]}")  # fmt: skip


def _written(outcome: ShardOutcome, workspace: Workspace) -> WrittenShard:
    """What a node has made, once its file is seen from here."""
    if outcome.made is None:
        kind = CallError if outcome.exit_code == CallError.exit_code else ScoringError
        raise kind(f"node {outcome.node}: {outcome.error}")
    written = outcome.made.written(workspace)
    size = written.aside.stat().st_size if written.aside.is_file() else None
    if size != written.shard.size:
        got = "none" if size is None else f"{size} bytes"
        raise ScoringError(f"{written.aside}: expected {written.shard.size} bytes from node "
                           f"{outcome.node}, got {got}: OUTPUT has to be where every node sees "
                           "it")  # fmt: skip
    return written


def _in_order(
    made: Iterable[WrittenShard], first: int, report: PositionCallback
) -> Iterator[WrittenShard]:
    """Shards as the ledger takes them; those that are early wait, and are reported all the same."""
    waiting: dict[int, WrittenShard] = {}
    for written in made:
        waiting[written.shard.number] = written
        shards = [one.shard for one in waiting.values()]
        end = max(shards, key=lambda shard: shard.number).end
        report(sum(shard.rows for shard in shards), sum(shard.failed for shard in shards), end)
        while first in waiting:
            yield waiting.pop(first)
            first += 1
