"""Tracks the activity of one stream. Reader, sender and graph runner of the stream share it."""

from dataclasses import dataclass, field
from time import monotonic


@dataclass(slots=True)
class Activity:
    """Time of the last byte sent or received, and number of graph calls without a result."""

    last_active: float = field(default_factory=monotonic)
    pending_calls: int = 0

    def touch(self) -> None:
        self.last_active = monotonic()

    def idle_seconds(self) -> float:
        """Seconds since the last byte was sent or received; 0 while the service is computing."""
        return 0.0 if self.pending_calls else monotonic() - self.last_active
