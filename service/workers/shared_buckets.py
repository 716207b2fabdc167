"""The buckets of rate limits, which workers share, so that a limit holds for all of them together.

Each use takes a lock and some ten microseconds. The record holds only the buckets that are not
full, so it stays small. A process that is killed releases its lock.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from .shared_record import SharedRecord

_DECODER = msgspec.json.Decoder(dict[str, float])


class SharedBuckets:
    """The time at which each bucket is full again, as JSON in a shared record."""

    def __init__(self, record: SharedRecord) -> None:
        self._record = record

    @contextmanager
    def changing(self, now: float) -> Iterator[dict[str, float]]:
        """Yield the states, and write them back; other workers wait meanwhile."""
        with self._record.locked():
            value = self._record.read()
            states = _DECODER.decode(value) if value else {}
            full_at = {bucket: time for bucket, time in states.items() if time > now}
            yield full_at
            self._record.write(msgspec.json.encode(full_at))
