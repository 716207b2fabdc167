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
from hsoftmax.runners.local import LocalRun
from hsoftmax.score_request import open_order
from hsoftmax.scoring import (
    Cut,
    Facts,
    Order,
    ScoringError,
    Start,
    Workspace,
    make_shard,
    workspace_of,
)
from hsoftmax.scoring import cuts as cuts_of

from .messages import Made, Outcome, Work, cut_of, table

_ATTEMPTS = 5  # at a shard: Ray would go on for ever


# What is wrong is told, not raised: Ray would try it again, or wrap it up in its own words.
def find_cuts(nothing: pa.Table, work: Work, start: Start) -> Iterator[pa.Table]:
    """One cut a table, so that the first shards are made while the last ones are looked for."""
    try:
        order = open_order(work.call, Facts.of(bundle.open_bundle(work.bundle)))
        with closing(order.source):
            for cut in cuts_of(order, start):
                yield table(cut=cut)
    except (UserError, OSError) as error:
        yield table(outcome=_failure(error))


def _failure(error: UserError | OSError) -> Outcome:
    node = ray.util.get_node_ip_address()
    if isinstance(error, UserError):
        return Outcome(node, error=str(error), exit_code=error.exit_code)
    return Outcome(node, error=f"{error.filename or 'system'}: {error.strerror or error}")


def _attempt(workspace: Workspace, shard: int) -> Path:
    """A file of this attempt's own: a node that was only thought dead may be at the shard, too.

    Raises ScoringError where so many died at it that another would.
    """
    left = len(workspace.attempts(shard))
    if left >= _ATTEMPTS:
        raise ScoringError(f"shard {shard}: expected it to be made, got {left} processes that "
                           "died at it")  # fmt: skip
    return workspace.aside(shard, f"-{uuid4().hex}")


class Node:
    """One bundle, mapped once, for as many shards at a time as there are threads."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._opening = Lock()
        self._opened: tuple[LocalRun, Facts] | None = None
        self._thread = local()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The table of a cut to that of what became of it."""
        cut = cut_of(batch)
        return batch if cut is None else table(outcome=self._outcome(cut))

    def _outcome(self, cut: Cut) -> Outcome:
        try:
            return Outcome(ray.util.get_node_ip_address(), self._make(cut))
        except (UserError, OSError) as error:
            return _failure(error)

    def _make(self, cut: Cut) -> Made:
        path = workspace_of(self._work.call.output)
        if not path.is_dir():
            raise ScoringError(f"{path}: expected the folder of the job's shards, got none: "
                               "OUTPUT has to be where every node sees it")  # fmt: skip
        run, facts = self._open()
        aside = _attempt(Workspace(path), cut.start.shard)
        return Made.of(make_shard(self._order(facts), run, cut, aside))

    def _open(self) -> tuple[LocalRun, Facts]:
        with self._opening:
            if self._opened is None:
                opened = bundle.open_bundle(self._work.bundle)
                self._opened = LocalRun(opened), Facts.of(opened)
            return self._opened

    def _order(self, facts: Facts) -> Order:
        """This thread's own: an open input has one position."""
        if not hasattr(self._thread, "order"):
            self._thread.order = self._expected(open_order(self._work.call, facts))
        order: Order = self._thread.order
        return order

    def _expected(self, order: Order) -> Order:
        wanted, got = self._work.identity, order.identity()
        if got["bundle"] != wanted["bundle"]:
            raise ScoringError(f"{self._work.bundle}: expected digest {wanted['bundle'][:12]}, "
                               f"got {got['bundle'][:12]}")  # fmt: skip
        if got != wanted:
            raise ScoringError(f"{self._work.call.input}: expected the files that the run was "
                               "given, got others: INPUT has to be where all see it")  # fmt: skip
        return order
