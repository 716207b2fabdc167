"""Code for the nodes: a task that finds shard ranges, and an actor that makes shards."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Lock, local
from uuid import uuid4

import pyarrow as pa
import ray

from hsoftmax import bundle
from hsoftmax.models import UserError
from hsoftmax.runners.local import LocalGraphRunner, bundle_info_of
from hsoftmax.score_request import open_job_spec
from hsoftmax.scoring import (
    BundleInfo,
    JobSpec,
    ScoringError,
    ShardRange,
    ShardStart,
    Workspace,
    make_shard,
    shard_ranges,
    workspace_path,
)

from .messages import RayJob, ShardMessage, ShardOutcome, message_table, range_of

_MAX_ATTEMPTS = 5  # at one shard: Ray itself would retry without end


# Errors are returned, not raised: Ray would retry the call, or wrap the message in its own.
def find_shard_ranges(empty: pa.Table, job: RayJob, start: ShardStart) -> Iterator[pa.Table]:
    """Yields a table for each range, so that the first shards are made while it still searches."""
    try:
        # It runs on the driver's machine, where the hashes have been compared.
        opened = bundle.open_bundle(job.bundle, check_hashes=False)
        spec = open_job_spec(job.request, bundle_info_of(opened))
        with closing(spec.reader):
            for shard_range in shard_ranges(spec, start):
                yield message_table(shard_range=shard_range)
    except (UserError, OSError) as error:
        yield message_table(outcome=_failure(error))


def _failure(error: UserError | OSError) -> ShardOutcome:
    node = ray.util.get_node_ip_address()
    if isinstance(error, UserError):
        return ShardOutcome(node, error=str(error), exit_code=error.exit_code)
    return ShardOutcome(node, error=f"{error.filename or 'system'}: {error.strerror or error}")


def _attempt_path(workspace: Workspace, shard: int) -> Path:
    """Returns a temporary path of this attempt alone.

    A node that Ray believes dead may still be writing the same shard.

    Raises:
        ScoringError: so many attempts died at this shard that another one would die, too.
    """
    left = len(workspace.attempts(shard))
    if left >= _MAX_ATTEMPTS:
        raise ScoringError(f"shard {shard}: expected it to be made, got {left} processes that "
                           "died at it")  # fmt: skip
    return workspace.temp_shard(shard, f"-{uuid4().hex}")


class ShardActor:
    """Makes shards on one node, on several threads, which share one mapped bundle."""

    def __init__(self, job: RayJob) -> None:
        self._job = job
        self._lock = Lock()
        self._opened: tuple[LocalGraphRunner, BundleInfo] | None = None
        self._thread = local()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Makes the shard of a table with a range. Returns a table with its outcome."""
        shard_range = range_of(batch)
        return batch if shard_range is None else message_table(outcome=self._outcome(shard_range))

    def _outcome(self, shard_range: ShardRange) -> ShardOutcome:
        try:
            return ShardOutcome(ray.util.get_node_ip_address(), self._make(shard_range))
        except (UserError, OSError) as error:
            return _failure(error)

    def _make(self, shard_range: ShardRange) -> ShardMessage:
        path = workspace_path(self._job.request.output)
        if not path.is_dir():
            raise ScoringError(f"{path}: expected the folder of the job's shards, got none: "
                               "OUTPUT has to be where every node sees it")  # fmt: skip
        run_graph, bundle_info = self._open()
        temp_path = _attempt_path(Workspace(path), shard_range.start.shard)
        written = make_shard(self._spec(bundle_info), run_graph, shard_range, temp_path)
        return ShardMessage.of(written)

    def _open(self) -> tuple[LocalGraphRunner, BundleInfo]:
        with self._lock:
            if self._opened is None:
                opened = bundle.open_bundle(self._job.bundle, check_hashes=self._job.check_hashes)
                native = self._job.identity["native"]  # else some digits depend on the node
                runner = LocalGraphRunner(opened, native="on" if native else "off")
                self._opened = runner, bundle_info_of(opened, runner.native_graphs)
            return self._opened

    def _spec(self, bundle_info: BundleInfo) -> JobSpec:
        """Returns this thread's own specification, because an open reader has one position."""
        if not hasattr(self._thread, "spec"):
            self._thread.spec = self._expect_same(open_job_spec(self._job.request, bundle_info))
        spec: JobSpec = self._thread.spec
        return spec

    def _expect_same(self, spec: JobSpec) -> JobSpec:
        """Returns the specification. Raises ScoringError unless it is the driver's."""
        expected, got = self._job.identity, spec.identity()
        if got["bundle"] != expected["bundle"]:
            raise ScoringError(f"{self._job.bundle}: expected digest {expected['bundle'][:12]}, "
                               f"got {got['bundle'][:12]}")  # fmt: skip
        if got != expected:
            raise ScoringError(f"{self._job.request.input}: expected the files that the run was "
                               "given, got others: INPUT has to be where all see it")  # fmt: skip
        return spec
