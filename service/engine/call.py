"""The data of the engine: calls and results, and the work items, slices and batches in between.

Routes, streams and jobs build a `GraphCall` and get a `GraphResult`. All else stays in the engine.
"""

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

from hsoftmax.models.arrays import Array
from hsoftmax.runtime.sessions import Feeds, RunOptions, Session

BatchKey = tuple[Any, ...]


class Lane(StrEnum):
    """A queue for calls of similar cost, so that large calls do not delay small ones."""

    TARGET = "target"
    TOP_K = "top_k"
    FULL = "full"


class Priority(StrEnum):
    """The urgency of a call: a user waits for it, or it is part of a job."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


_LANES = {"top_k": Lane.TOP_K, "log_probs": Lane.FULL}


def lane_of(task: str) -> Lane:
    """The lane of a task. Clusters, samples and other tasks of about a path's cost use TARGET."""
    return _LANES.get(task, Lane.TARGET)


class GraphCall(msgspec.Struct, frozen=True):
    """One run of a graph.

    Attributes:
        session: the session of the task's graph
        feeds: the graph's inputs, validated
        rows: rows of the first input
        cost: estimated multiply-adds
        values: estimated numbers in the outputs
        num_bytes: bytes that the call holds while it waits
        priority: decides which of two calls that wait in a lane runs first
        timeout: seconds until the call fails; None takes the engine's default
        isolated: never batched with other calls, so the result is always the same to the bit
    """

    session: Session
    feeds: Feeds
    rows: int
    cost: int
    values: int = 0
    num_bytes: int = 0
    priority: Priority = Priority.INTERACTIVE
    timeout: float | None = None
    isolated: bool = False


class GraphResult(msgspec.Struct, frozen=True):
    """The outputs of a graph, and the seconds that the call waited and ran.

    Attributes:
        batches: rows and seconds of the batches in which the call came first, so that each batch
            is in one result; None if it ran alone
    """

    arrays: list[Array]
    queued: float = 0.0
    computed: float = 0.0
    batches: list[tuple[int, float]] | None = None


@dataclass(eq=False, slots=True)
class WorkItem:
    """A submitted call: it waits as a whole, or some slices of it run or have run.

    Attributes:
        num_items: pairs or rows of the call; slices are ranges of them
        taken: items that have left the queue
        done: items that have been computed
        cancelled: the caller no longer waits: cancelled, timed out or failed
        batches: the batches that run slices of this item now
        led: rows and seconds of the batches whose first slice was of this item
    """

    call: GraphCall
    lane: Lane
    key: BatchKey
    num_items: int
    timeout: float
    future: asyncio.Future[GraphResult]
    submitted: float
    num_bytes: int
    started: float = 0.0
    taken: int = 0
    done: int = 0
    computed: float = 0.0
    cancelled: bool = False
    arrays: list[Array] = field(default_factory=list)
    batches: "set[Batch]" = field(default_factory=set)
    led: list[tuple[int, float]] = field(default_factory=list)

    @property
    def cost_per_item(self) -> float:
        """Multiply-adds of one row or pair."""
        return self.call.cost / self.num_items

    @property
    def queued_cost(self) -> float:
        """Multiply-adds of the items that are still in the queue."""
        return self.cost_per_item * (self.num_items - self.taken)


@dataclass(frozen=True, slots=True)
class Slice:
    """The items `start` to `stop` of a work item."""

    item: WorkItem
    start: int
    stop: int

    @property
    def num_items(self) -> int:
        """Rows or pairs of the slice."""
        return self.stop - self.start

    @property
    def cost(self) -> float:
        """Multiply-adds of the slice."""
        return self.item.cost_per_item * self.num_items


@dataclass(eq=False, slots=True)
class Batch:
    """Slices that run together in one graph run; `options` can stop the run between two nodes."""

    slices: list[Slice]
    options: RunOptions = field(default_factory=RunOptions)

    @property
    def lane(self) -> Lane:
        """The lane of all slices."""
        return self.slices[0].item.lane

    @property
    def session(self) -> Session:
        """The session of all slices."""
        return self.slices[0].item.call.session

    @property
    def rows(self) -> int:
        """Rows of the calls that the slices belong to."""
        return sum(one.item.call.rows for one in self.slices)

    @property
    def cost(self) -> float:
        """Multiply-adds of the batch."""
        return sum(one.cost for one in self.slices)

    @property
    def cancelled(self) -> bool:
        """True if the callers of all slices no longer wait."""
        return all(one.item.cancelled for one in self.slices)
