"""Waiting for the disk beside the work: a shard is synced, renamed and recorded on a thread.

One at a time and in order, so that the ledger never has a gap.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from hsoftmax.scoring.perplexity import Tally
from hsoftmax.scoring.row_batch import RowId

from .checkpoint import CheckpointStore, Shard
from .workspace import Workspace, sync_and_rename


@dataclass(frozen=True, slots=True)
class WrittenShard:
    """A shard whose file lies aside, and what goes into the ledger with it."""

    aside: Path
    shard: Shard
    tallies: Mapping[RowId, Tally]
    error_records: Sequence[str]


class Committer:
    """Holds the ledger until it is left; what fails is raised at the next shard, or on leaving.

    `then` is called on its thread with each shard that is settled.
    """

    def __init__(
        self, workspace: Workspace, checkpoint: CheckpointStore, then: Callable[[Shard], None]
    ) -> None:
        self._workspace = workspace
        self._checkpoint = checkpoint
        self._then = then
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="settle")
        self._last: Future[None] | None = None

    def commit(self, written: WrittenShard) -> None:
        """Begin with this shard as soon as the one before is settled."""
        self._wait()
        self._last = self._thread.submit(self._commit, written)

    def _commit(self, written: WrittenShard) -> None:
        sync_and_rename(written.aside, self._workspace.shard(written.shard.number))
        self._checkpoint.record(written.shard, written.tallies, written.error_records)
        self._then(written.shard)

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
