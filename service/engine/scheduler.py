"""Holds waiting calls by lane and priority, bounds them, and forms the next batch.

Start-time fair queueing: each lane queue has a virtual time, which advances by the estimated
seconds of the slices taken from it, divided by its weight. The queue with the lowest virtual time
is next. A queue that was empty starts at the current virtual time: it saves up no turns, and it
waits for no more than the one slice that is running.
"""

import math
import threading
from dataclasses import dataclass, field

from hsoftmax.service.errors import Overloaded

from .call import Batch, BatchKey, Lane, Priority, Slice, WorkItem
from .cost_model import CostModel
from .serializer import Serializer

# Multiply-adds in a batch: tens of milliseconds, which other calls may have to wait. The cost of a
# top-k search is an upper bound, and usually a hundred times the real one.
_MAX_BATCH_COST = {Lane.TARGET: 2**27, Lane.TOP_K: 2**31, Lane.FULL: 2**29}
# A full distribution reads all weights once a batch, which takes as long as computing some rows.
_MIN_BATCH_ITEMS = {Lane.TARGET: 1, Lane.TOP_K: 1, Lane.FULL: 8}

_LANE_WEIGHT = {Lane.TARGET: 4, Lane.TOP_K: 2, Lane.FULL: 1}
_PRIORITY_WEIGHT = {Priority.INTERACTIVE: 8, Priority.BATCH: 1}

_MAX_RETRY_AFTER_S = 60  # a longer estimate is not reliable


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """The most that may wait in one lane; calls of low priority may take half of it."""

    requests: int
    rows: int
    num_bytes: int


@dataclass(slots=True)
class _Usage:
    """The requests, rows and bytes that wait in one lane."""

    requests: int = 0
    rows: int = 0
    num_bytes: int = 0

    def add(self, item: WorkItem, sign: int) -> None:
        self.requests += sign
        self.rows += sign * item.call.rows
        self.num_bytes += sign * item.num_bytes

    def has_room(self, item: WorkItem, limits: QueueLimits, serializer: Serializer) -> bool:
        """True if the item may wait. In an empty lane an item of any size may.

        Responses that wait for encoding count as waiting calls, or they would pile up behind a slow
        encoder. Responses of the target lane are short and do not count.
        """
        share = 1 if item.call.priority is Priority.INTERACTIVE else 2
        requests, num_bytes = self.requests, self.num_bytes
        if item.lane is not Lane.TARGET:
            requests, num_bytes = requests + serializer.pending, num_bytes + serializer.num_bytes
        return requests == 0 or (
            (requests + 1) * share <= limits.requests
            and (self.rows + item.call.rows) * share <= limits.rows
            and (num_bytes + item.num_bytes) * share <= limits.num_bytes
        )


@dataclass(eq=False, slots=True)
class _LaneQueue:
    """The waiting items of one lane and priority by batch key; the longest waiting key is first."""

    lane: Lane
    weight: int
    virtual_time: float = 0.0
    cost: float = 0.0
    items: dict[BatchKey, dict[WorkItem, None]] = field(default_factory=dict)


class Scheduler:
    """The lane queues. The event loop puts and cancels items, the compute threads take batches."""

    def __init__(
        self,
        limits: QueueLimits,
        cost_model: CostModel,
        serializer: Serializer,
        *,
        threads: int,
        batching: bool,
    ) -> None:
        self._limits = limits
        self._serializer = serializer
        self._cost_model = cost_model
        self._threads = threads
        self._batching = batching
        self._changed = threading.Condition()
        self._queues = {
            (lane, priority): _LaneQueue(lane, _LANE_WEIGHT[lane] * _PRIORITY_WEIGHT[priority])
            for priority in Priority
            for lane in Lane
        }
        self._usage = {lane: _Usage() for lane in Lane}
        self._running = dict.fromkeys(Lane, 0)
        self._virtual_time = 0.0
        self._retry_after = 1  # computed by `put`, because a rejection must be cheap
        self._closed = False

    def waiting(self, lane: Lane) -> int:
        """The number of requests that wait in a lane."""
        return self._usage[lane].requests

    def is_full(self, lane: Lane) -> bool:
        """True if the lane has no room for any item, not even the smallest."""
        encoding = 0 if lane is Lane.TARGET else self._serializer.pending
        return self._usage[lane].requests + encoding >= self._limits.requests

    def rejection(self, lane: Lane) -> tuple[str, int]:
        """The message of a rejection, and the seconds after which there may be room."""
        return f"{lane}: too much is waiting already", self._retry_after

    def put(self, item: WorkItem) -> None:
        """Add an item to its lane queue. Raises Overloaded if the lane has no room."""
        with self._changed:
            if not self._usage[item.lane].has_room(item, self._limits, self._serializer):
                raise Overloaded(*self.rejection(item.lane))
            queue = self._queue_of(item)
            if not queue.items:
                queue.virtual_time = max(queue.virtual_time, self._virtual_time)
            queue.items.setdefault(item.key, {})[item] = None
            queue.cost += item.call.cost
            self._usage[item.lane].add(item, +1)
            self._retry_after = self._estimate_wait()
            self._changed.notify()

    def next_batch(self) -> Batch | None:
        """Wait for the next batch; None once the scheduler is closed."""
        with self._changed:
            while not (ready := self._ready_queues()):
                if self._closed:
                    return None
                self._changed.wait()
            queue = min(ready, key=lambda one: one.virtual_time)
            self._virtual_time = queue.virtual_time
            batch = self._form_batch(queue)
            self._running[queue.lane] += 1
            return batch

    def complete(self, batch: Batch) -> None:
        """Record that a batch from `next_batch` has ended."""
        with self._changed:
            self._running[batch.lane] -= 1
            for one in batch.slices:
                one.item.batches.discard(batch)
            self._changed.notify()

    def single(self, one: Slice) -> Batch:
        """A batch of one slice, for the retry of a failed batch."""
        batch = Batch([one])
        with self._changed:
            self._register(batch)
        return batch

    def cancel(self, item: WorkItem) -> None:
        """Remove an item from its queue, and stop the batches that no other caller waits for."""
        with self._changed:
            item.cancelled = True
            queue = self._queue_of(item)
            if item in queue.items.get(item.key, ()):
                queue.cost -= item.queued_cost
                self._remove(item)
            for batch in item.batches:
                if batch.cancelled:
                    batch.options.terminate = True

    def close(self) -> list[WorkItem]:
        """Form no more batches; return the items that were waiting."""
        with self._changed:
            self._closed = True
            queues = self._queues.values()
            items = [item for queue in queues for same in queue.items.values() for item in same]
            for item in items:
                self._remove(item)
            self._changed.notify_all()
        return items

    def notify_encoded(self) -> None:
        """Wake a thread: a response is encoded, and a full distribution may have waited for it."""
        with self._changed:
            self._changed.notify()

    def _ready_queues(self) -> list[_LaneQueue]:
        """The queues from which a batch may be formed now."""
        return [
            queue
            for queue in self._queues.values()
            if queue.items and (queue.lane is not Lane.FULL or self._full_may_run(queue))
        ]

    def _full_may_run(self, queue: _LaneQueue) -> bool:
        """True if a batch of full distributions may start now.

        They leave at least one of several threads to other lanes. They also wait while responses
        pile up: where encoding takes longer than computing, an early batch is a small one, and
        reads all weights for a few rows. A batch that ends when the encoder is free is early
        enough.
        """
        if self._running[Lane.FULL] >= max(1, self._threads // 2):
            return False
        cost = min(queue.cost, _MAX_BATCH_COST[Lane.FULL])
        return self._serializer.wait_seconds <= self._cost_model.seconds(Lane.FULL, cost)

    def _form_batch(self, queue: _LaneQueue) -> Batch:
        """Form a batch of the queue's first key, filled up with items of the other priority."""
        key, same = next(iter(queue.items.items()))
        each = next(iter(same)).cost_per_item
        room = max(float(_MAX_BATCH_COST[queue.lane]), each * _MIN_BATCH_ITEMS[queue.lane])
        others = [q for q in self._queues.values() if q.lane is queue.lane and q is not queue]
        slices: list[Slice] = []
        for source in (queue, *others):
            while key in source.items and (
                one := self._take_slice(source, key, room, first=not slices)
            ):
                slices.append(one)
                room = room - one.cost if self._batching else 0.0
        if key in queue.items:  # the rest of this key goes behind the other keys
            queue.items[key] = queue.items.pop(key)
        batch = Batch(slices)
        self._register(batch)
        return batch

    def _take_slice(
        self, queue: _LaneQueue, key: BatchKey, room: float, *, first: bool
    ) -> Slice | None:
        """Take the part of the key's next item that fits; the first slice has at least one item."""
        item = next(iter(queue.items[key]))
        left = item.num_items - item.taken
        fits = left if item.cost_per_item * left <= room else int(room / item.cost_per_item)
        count = max(fits, 1) if first else fits
        if count <= 0:
            return None
        one = Slice(item, item.taken, item.taken + count)
        item.taken += count
        queue.cost -= one.cost
        queue.virtual_time += self._cost_model.seconds(queue.lane, one.cost) / queue.weight
        if item.taken == item.num_items:
            self._remove(item)
        else:  # the item goes behind the others of its key, so that none waits for all its slices
            queue.items[key][item] = queue.items[key].pop(item)
        return one

    def _register(self, batch: Batch) -> None:
        for one in batch.slices:
            one.item.batches.add(batch)

    def _remove(self, item: WorkItem) -> None:
        queue = self._queue_of(item)
        same = queue.items[item.key]
        del same[item]
        if not same:
            del queue.items[item.key]
        self._usage[item.lane].add(item, -1)

    def _queue_of(self, item: WorkItem) -> _LaneQueue:
        return self._queues[item.lane, item.call.priority]

    def _estimate_wait(self) -> int:
        """Estimated whole seconds until everything that waits now is computed and encoded."""
        estimates = (self._cost_model.seconds(q.lane, q.cost) for q in self._queues.values())
        seconds = max(sum(estimates) / self._threads, self._serializer.wait_seconds)
        return max(1, min(_MAX_RETRY_AFTER_S, math.ceil(seconds)))
