"""Commits finished shards on a background thread: fsync, rename, checkpoint.

Waiting for the disk there leaves the other threads to the scoring. Shards are committed one at a
time and in order, so that the checkpoint never has a gap.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from hsoftmax.scoring.failures import FailuresByCode
from hsoftmax.scoring.perplexity import Tally
from hsoftmax.scoring.requirements import RowId

from .checkpoint import CheckpointStore, Shard
from .workspace import Workspace, sync_and_rename


@dataclass(frozen=True, slots=True)
class WrittenShard:
    """A shard in a temporary file, and what the checkpoint will record with it."""

    temp_path: Path
    shard: Shard
    tallies: Mapping[RowId, Tally]
    error_records: Sequence[str]
    failures: FailuresByCode = field(default_factory=dict)


class Committer:
    """Commits shards; until it is closed, nothing else may use the checkpoint.

    An error is raised at the next `commit`, or when the block ends. `on_committed` is called with
    each committed shard, on the background thread.
    """

    def __init__(
        self,
        workspace: Workspace,
        checkpoint: CheckpointStore,
        on_committed: Callable[[Shard], None],
    ) -> None:
        self._workspace = workspace
        self._checkpoint = checkpoint
        self._on_committed = on_committed
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._last: Future[None] | None = None

    def commit(self, written: WrittenShard) -> None:
        """Waits for the shard before, then starts to commit this one."""
        self._wait()
        self._last = self._thread.submit(self._commit, written)

    def _commit(self, written: WrittenShard) -> None:
        sync_and_rename(written.temp_path, self._workspace.shard(written.shard.number))
        self._checkpoint.record(
            written.shard, written.tallies, written.error_records, written.failures
        )
        self._on_committed(written.shard)

    def _wait(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(wait=True)
        if kind is None:
            self._wait()
