"""What runs on the nodes: one task that finds where shards begin, and an actor that makes them."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Lock, local
from uuid import uuid4

import pyarrow as pa
import ray

from hsoftmax import bundle
from hsoftmax.models import UserError
from hsoftmax.runners.local import LocalGraphRunner
from hsoftmax.score_request import open_job_spec
from hsoftmax.scoring import (
    BundleInfo,
    JobSpec,
    ScoringError,
    ShardRange,
    ShardStart,
    Workspace,
    make_shard,
    workspace_path,
)
from hsoftmax.scoring import shard_ranges as cuts_of

from .messages import MadeShard, RayJob, ShardOutcome, message_table, range_of

_ATTEMPTS = 5  # at a shard: Ray would go on for ever


# What is wrong is told, not raised: Ray would try it again, or wrap it up in its own words.
def find_shard_ranges(nothing: pa.Table, work: RayJob, start: ShardStart) -> Iterator[pa.Table]:
    """One cut a table, so that the first shards are made while the last ones are looked for."""
    try:
        spec = open_job_spec(work.call, BundleInfo.of(bundle.open_bundle(work.bundle)))
        with closing(spec.reader):
            for shard_range in cuts_of(spec, start):
                yield message_table(shard_range=shard_range)
    except (UserError, OSError) as error:
        yield message_table(outcome=_failure(error))


def _failure(error: UserError | OSError) -> ShardOutcome:
    node = ray.util.get_node_ip_address()
    if isinstance(error, UserError):
        return ShardOutcome(node, error=str(error), exit_code=error.exit_code)
    return ShardOutcome(node, error=f"{error.filename or 'system'}: {error.strerror or error}")


def _attempt(workspace: Workspace, shard: int) -> Path:
    """A file of this attempt's own: a node that was only thought dead may be at the shard, too.

    Raises ScoringError where so many died at it that another would.
    """
    left = len(workspace.attempts(shard))
    if left >= _ATTEMPTS:
        raise ScoringError(f"shard {shard}: expected it to be made, got {left} processes that "
                           "died at it")  # fmt: skip
    return workspace.aside(shard, f"-{uuid4().hex}")


class ShardActor:
    """One bundle, mapped once, for as many shards at a time as there are threads."""

    def __init__(self, work: RayJob) -> None:
        self._work = work
        self._opening = Lock()
        self._opened: tuple[LocalGraphRunner, BundleInfo] | None = None
        self._thread = local()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The table of a cut to that of what became of it."""
        shard_range = range_of(batch)
        return batch if shard_range is None else message_table(outcome=self._outcome(shard_range))

    def _outcome(self, shard_range: ShardRange) -> ShardOutcome:
        try:
            return ShardOutcome(ray.util.get_node_ip_address(), self._make(shard_range))
        except (UserError, OSError) as error:
            return _failure(error)

    def _make(self, shard_range: ShardRange) -> MadeShard:
        path = workspace_path(self._work.call.output)
        if not path.is_dir():
            raise ScoringError(f"{path}: expected the folder of the job's shards, got none: "
                               "OUTPUT has to be where every node sees it")  # fmt: skip
        run, bundle_info = self._open()
        aside = _attempt(Workspace(path), shard_range.start.shard)
        return MadeShard.of(make_shard(self._order(bundle_info), run, shard_range, aside))

    def _open(self) -> tuple[LocalGraphRunner, BundleInfo]:
        with self._opening:
            if self._opened is None:
                opened = bundle.open_bundle(self._work.bundle)
                self._opened = LocalGraphRunner(opened), BundleInfo.of(opened)
            return self._opened

    def _order(self, bundle_info: BundleInfo) -> JobSpec:
        """This thread's own: an open input has one position."""
        if not hasattr(self._thread, "order"):
            self._thread.spec = self._expected(open_job_spec(self._work.call, bundle_info))
        spec: JobSpec = self._thread.spec
        return spec

    def _expected(self, spec: JobSpec) -> JobSpec:
        wanted, got = self._work.identity, spec.identity()
        if got["bundle"] != wanted["bundle"]:
            raise ScoringError(f"{self._work.bundle}: expected digest {wanted['bundle'][:12]}, "
                               f"got {got['bundle'][:12]}")  # fmt: skip
        if got != wanted:
            raise ScoringError(f"{self._work.call.input}: expected the files that the run was "
                               "given, got others: INPUT has to be where all see it")  # fmt: skip
        return spec
