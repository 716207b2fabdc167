"""What the engine is asked to run, and what it keeps about it until it is answered."""

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec
import onnxruntime as ort

from hsoftmax.models.arrays import Array
from hsoftmax.runtime.sessions import Feeds, Session

Key = tuple[Any, ...]


class Lane(StrEnum):
    """Work of one size queues together, so that the large never stands before the small."""

    TARGET = "target"
    TOP_K = "top_k"
    FULL = "full"


class Priority(StrEnum):
    """Whether a person waits for the answer, or nobody in particular."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


_LANES = {"top_k": Lane.TOP_K, "log_probs": Lane.FULL}


def lane_of(task: str) -> Lane:
    """Clusters, samples and whatever else costs about a path go with the targets."""
    return _LANES.get(task, Lane.TARGET)


class GraphCall(msgspec.Struct, frozen=True):
    """One run of a graph.

    Attributes:
        session: the task's graph
        feeds: its inputs, all checked
        rows: rows of its first input
        work: about how many multiply-adds it takes
        values: about how many numbers it gives
        priority: which of two that wait in a lane goes first
        timeout: seconds until nobody wants the answer; None is the engine's default
        apart: shares no batch with others, so that its answer is the same to the bit, always
    """

    session: Session
    feeds: Feeds
    rows: int
    work: int
    values: int = 0
    priority: Priority = Priority.INTERACTIVE
    timeout: float | None = None
    apart: bool = False

    @property
    def num_bytes(self) -> int:
        """What it holds while it waits, and what its answer will."""
        return sum(array.nbytes for array in self.feeds.values()) + 4 * self.values


class GraphResult(msgspec.Struct, frozen=True):
    """A graph's outputs, and the seconds they waited and took."""

    arrays: list[Array]
    queued: float = 0.0
    computed: float = 0.0


@dataclass(eq=False, slots=True)
class WorkItem:
    """A call on its way: all of it waits, or some slices of it have been taken.

    Attributes:
        units: pairs or rows, whichever the graph counts; slices are ranges of them
        taken, done: how many units have left the queue, and have been computed
        dropped: nobody wants it any more
        batches: the batches that run slices of it
    """

    call: GraphCall
    lane: Lane
    key: Key
    units: int
    timeout: float
    future: asyncio.Future[GraphResult]
    submitted: float
    num_bytes: int
    started: float = 0.0
    taken: int = 0
    done: int = 0
    computed: float = 0.0
    dropped: bool = False
    arrays: list[Array] = field(default_factory=list)
    batches: "set[Batch]" = field(default_factory=set)

    @property
    def work_of_a_unit(self) -> float:
        return self.call.work / self.units

    @property
    def work_left(self) -> float:
        return self.work_of_a_unit * (self.units - self.taken)


@dataclass(frozen=True, slots=True)
class Slice:
    """Units `start` to `stop` of a job."""

    item: WorkItem
    start: int
    stop: int

    @property
    def work(self) -> float:
        return self.item.work_of_a_unit * (self.stop - self.start)


@dataclass(eq=False, slots=True)
class Batch:
    """Slices that go through their graph together; `options` can stop them half-way."""

    slices: list[Slice]
    options: ort.RunOptions = field(default_factory=ort.RunOptions)

    @property
    def lane(self) -> Lane:
        return self.slices[0].item.lane

    @property
    def session(self) -> Session:
        return self.slices[0].item.call.session

    @property
    def rows(self) -> int:
        """Rows of the calls that it has slices of."""
        return sum(one.item.call.rows for one in self.slices)

    @property
    def work(self) -> float:
        return sum(one.work for one in self.slices)

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for some of it."""
        return not all(one.item.dropped for one in self.slices)
