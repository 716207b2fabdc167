"""Whether anything still happens between a stream and its client."""

from dataclasses import dataclass, field
from time import monotonic


@dataclass(slots=True)
class Activity:
    """When a byte last came or went, and how much of what came is not answered yet."""

    last_touched: float = field(default_factory=monotonic)
    pending_calls: int = 0

    def touch(self) -> None:
        self.last_touched = monotonic()

    def idle_seconds(self) -> float:
        """Seconds since anything happened; none while the service itself is at work."""
        return 0.0 if self.pending_calls else monotonic() - self.last_touched
