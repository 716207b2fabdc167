"""What waits, by lane and priority, and which of it goes next.

Fair queueing by start times: each line has a clock that moves by what was taken from it, in
estimated seconds over its weight, and the line whose clock is behind goes next. A line that was
empty starts at the present, so that it neither saves up turns nor waits for more than the one slice
that is running.
"""

import math
import threading
from dataclasses import dataclass, field

from hsoftmax.service.errors import Overloaded

from .call import Batch, Key, Lane, Priority, Slice, WorkItem
from .cost_model import CostModel
from .serializer import Serializer

# Multiply-adds in a batch: tens of milliseconds, which is how long others may have to wait. The
# work of a top-k search is an upper bound, and usually a hundred times what it takes.
_BUDGET = {Lane.TARGET: 2**27, Lane.TOP_K: 2**31, Lane.FULL: 2**29}
# A full distribution reads all weights once a batch, which takes as long as computing some rows.
_LEAST_UNITS = {Lane.TARGET: 1, Lane.TOP_K: 1, Lane.FULL: 8}

_WEIGHT = {Lane.TARGET: 4, Lane.TOP_K: 2, Lane.FULL: 1}
_WEIGHT_OF_PRIORITY = {Priority.INTERACTIVE: 8, Priority.BATCH: 1}

_LONGEST_WAIT = 60  # seconds; nobody should trust an estimate beyond it


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How much may wait in one lane; work of low priority may take half of it."""

    requests: int
    rows: int
    num_bytes: int


@dataclass(slots=True)
class _Held:
    """How much waits in one lane."""

    requests: int = 0
    rows: int = 0
    num_bytes: int = 0

    def add(self, item: WorkItem, sign: int) -> None:
        self.requests += sign
        self.rows += sign * item.call.rows
        self.num_bytes += sign * item.num_bytes

    def has_room(self, item: WorkItem, bounds: QueueLimits, writers: Serializer) -> bool:
        """Whatever its size, a job that finds nobody waiting may wait.

        Answers that wait to be written count as if they still waited to be computed: else they
        would pile up behind a slower pen. Those of pairs are short.
        """
        share = 1 if item.call.priority is Priority.INTERACTIVE else 2
        requests, num_bytes = self.requests, self.num_bytes
        if item.lane is not Lane.TARGET:
            requests, num_bytes = requests + writers.pending, num_bytes + writers.num_bytes
        return requests == 0 or (
            (requests + 1) * share <= bounds.requests
            and (self.rows + item.call.rows) * share <= bounds.rows
            and (num_bytes + item.num_bytes) * share <= bounds.num_bytes
        )


@dataclass(eq=False, slots=True)
class _Line:
    """Jobs of one lane and priority, by key; the key that waits longest comes first."""

    lane: Lane
    weight: int
    clock: float = 0.0
    work: float = 0.0
    items: dict[Key, dict[WorkItem, None]] = field(default_factory=dict)


class Queue:
    """Shared by the event loop, which puts and drops, and the compute threads, which take."""

    def __init__(
        self,
        bounds: QueueLimits,
        pace: CostModel,
        writers: Serializer,
        *,
        threads: int,
        batching: bool,
    ) -> None:
        self._bounds = bounds
        self._writers = writers
        self._pace = pace
        self._threads = threads
        self._batching = batching
        self._changed = threading.Condition()
        self._lines = {
            (lane, priority): _Line(lane, _WEIGHT[lane] * _WEIGHT_OF_PRIORITY[priority])
            for priority in Priority
            for lane in Lane
        }
        self._held = {lane: _Held() for lane in Lane}
        self._running = dict.fromkeys(Lane, 0)
        self._now = 0.0
        self._retry_after = 1  # as it was when the last job was put: a refusal must be cheap
        self._closed = False

    def waiting(self, lane: Lane) -> int:
        """How many requests wait in a lane."""
        return self._held[lane].requests

    def is_full(self, lane: Lane) -> bool:
        """Whether there is no room for any job, be it ever so small."""
        writing = 0 if lane is Lane.TARGET else self._writers.pending
        return self._held[lane].requests + writing >= self._bounds.requests

    def reason(self, lane: Lane) -> tuple[str, int]:
        """Why there is no room, and in how many seconds there may be."""
        return f"{lane}: too much is waiting already", self._retry_after

    def put(self, item: WorkItem) -> None:
        """Let a job wait. Raises Overloaded if there is no room in its lane."""
        with self._changed:
            if not self._held[item.lane].has_room(item, self._bounds, self._writers):
                raise Overloaded(*self.reason(item.lane))
            line = self._line(item)
            if not line.items:
                line.clock = max(line.clock, self._now)
            line.items.setdefault(item.key, {})[item] = None
            line.work += item.call.work
            self._held[item.lane].add(item, +1)
            self._retry_after = self._wait()
            self._changed.notify()

    def take(self) -> Batch | None:
        """Wait for the next batch; None once the queue is closed."""
        with self._changed:
            while not (ready := self._ready()):
                if self._closed:
                    return None
                self._changed.wait()
            line = min(ready, key=lambda one: one.clock)
            self._now = line.clock
            batch = self._fill(line)
            self._running[line.lane] += 1
            return batch

    def ran(self, batch: Batch) -> None:
        """A batch that was taken is over."""
        with self._changed:
            self._running[batch.lane] -= 1
            for one in batch.slices:
                one.item.batches.discard(batch)
            self._changed.notify()

    def alone(self, one: Slice) -> Batch:
        """A part of a batch as a batch of its own."""
        batch = Batch([one])
        with self._changed:
            self._start(batch)
        return batch

    def drop(self, item: WorkItem) -> None:
        """Nobody wants it: forget what waits, and stop what runs if nobody shares it."""
        with self._changed:
            item.dropped = True
            line = self._line(item)
            if item in line.items.get(item.key, ()):
                line.work -= item.work_left
                self._leave(item)
            for batch in item.batches:
                if not batch.wanted:
                    batch.options.terminate = True

    def close(self) -> list[WorkItem]:
        """Take no more; the jobs that were waiting."""
        with self._changed:
            self._closed = True
            lines = self._lines.values()
            items = [item for line in lines for same in line.items.values() for item in same]
            for item in items:
                self._leave(item)
            self._changed.notify_all()
        return items

    def look_again(self) -> None:
        """An answer has been written, for which a full distribution may have waited."""
        with self._changed:
            self._changed.notify()

    def _ready(self) -> list[_Line]:
        """Lines that may go on."""
        return [
            line
            for line in self._lines.values()
            if line.items and (line.lane is not Lane.FULL or self._full_may_run(line))
        ]

    def _full_may_run(self, line: _Line) -> bool:
        """The last thread but one is not for full distributions, nor any while answers pile up.

        Where writing takes longer than computing, a batch that starts early is a small one, and the
        weights are read for a few rows; one that is done when the pen is free is early enough.
        """
        if self._running[Lane.FULL] >= max(1, self._threads // 2):
            return False
        takes = self._pace.seconds(Lane.FULL, min(line.work, _BUDGET[Lane.FULL]))
        return self._writers.wait <= takes

    def _fill(self, line: _Line) -> Batch:
        """A batch from the line's first key, topped up with what is of the other priority."""
        key, same = next(iter(line.items.items()))
        each = next(iter(same)).work_of_a_unit
        room = max(float(_BUDGET[line.lane]), each * _LEAST_UNITS[line.lane])
        others = [one for one in self._lines.values() if one.lane is line.lane and one is not line]
        slices: list[Slice] = []
        for source in (line, *others):
            while key in source.items and (one := self._cut(source, key, room, first=not slices)):
                slices.append(one)
                room = room - one.work if self._batching else 0.0
        if key in line.items:  # what is left of it goes behind the other keys
            line.items[key] = line.items.pop(key)
        batch = Batch(slices)
        self._start(batch)
        return batch

    def _cut(self, line: _Line, key: Key, room: float, *, first: bool) -> Slice | None:
        """As much of the next job as there is room for; the first always gets some."""
        item = next(iter(line.items[key]))
        left = item.units - item.taken
        fits = left if item.work_of_a_unit * left <= room else int(room / item.work_of_a_unit)
        count = max(fits, 1) if first else fits
        if count <= 0:
            return None
        one = Slice(item, item.taken, item.taken + count)
        item.taken += count
        line.work -= one.work
        line.clock += self._pace.seconds(line.lane, one.work) / line.weight
        if item.taken == item.units:
            self._leave(item)
        else:  # nobody waits for all slices of the job before
            line.items[key][item] = line.items[key].pop(item)
        return one

    def _start(self, batch: Batch) -> None:
        for one in batch.slices:
            one.item.batches.add(batch)

    def _leave(self, item: WorkItem) -> None:
        line = self._line(item)
        same = line.items[item.key]
        del same[item]
        if not same:
            del line.items[item.key]
        self._held[item.lane].add(item, -1)

    def _line(self, item: WorkItem) -> _Line:
        return self._lines[item.lane, item.call.priority]

    def _wait(self) -> int:
        """Whole seconds until what waits now has been computed, as far as one can tell."""
        lines = self._lines.values()
        seconds = sum(self._pace.seconds(line.lane, line.work) for line in lines) / self._threads
        return max(1, min(_LONGEST_WAIT, math.ceil(max(seconds, self._writers.wait))))
