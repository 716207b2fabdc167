"""Whether anything still happens between a stream and its client."""

from dataclasses import dataclass, field
from time import monotonic


@dataclass(slots=True)
class Activity:
    """When a byte last came or went, and how much of what came is not answered yet."""

    last: float = field(default_factory=monotonic)
    working: int = 0

    def beat(self) -> None:
        self.last = monotonic()

    def quiet(self) -> float:
        """Seconds since anything happened; none while the service itself is at work."""
        return 0.0 if self.working else monotonic() - self.last
