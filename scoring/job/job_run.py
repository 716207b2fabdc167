"""One run of a job: its output, its locked workspace, and its open checkpoint, as one object.

The functions of `finalize` and `runner` take it.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from hsoftmax.scoring.errors import CorruptShard, ScoringError

from .checkpoint import CheckpointStore
from .output import OutputSpec
from .workspace import Workspace, lock_workspace

OpenCheckpoint = Callable[[Workspace], CheckpointStore]


@dataclass(frozen=True)
class JobRun:
    """One process's turn at a job.

    It holds the output's specification, not the job's: when a job ends early, its input and its
    bundle may be gone.
    """

    output: OutputSpec
    workspace: Workspace
    checkpoint: CheckpointStore

    @property
    def identity(self) -> dict[str, Any]:
        """The job's identity as the checkpoint recorded it when the job began."""
        identity = self.checkpoint.identity()
        assert identity is not None, "a run of a job that never began"
        return identity


@contextmanager
def open_run(output: OutputSpec, open_checkpoint: OpenCheckpoint) -> Iterator[JobRun]:
    """Locks the output's workspace and opens the checkpoint in it, until the block ends.

    Raises:
        CallError: another process is at this output.
        CorruptShard: the block found one; the checkpoint has dropped it.
        ScoringError: the checkpoint cannot be read or written.
    """
    with lock_workspace(output.path) as workspace:
        try:
            with closing(open_checkpoint(workspace)) as checkpoint, _drop_corrupt(checkpoint):
                yield JobRun(output, workspace, checkpoint)
        except sqlite3.Error as error:
            raise ScoringError(
                f"{workspace.checkpoint_path}: expected a checkpoint database, got: {error}"
            ) from None


@contextmanager
def _drop_corrupt(checkpoint: CheckpointStore) -> Iterator[None]:
    """Drops a corrupt shard from the checkpoint, so that the next run makes it again."""
    try:
        yield
    except CorruptShard as corrupt:
        checkpoint.forget(corrupt.number)
        raise
