"""A rate limit: a token bucket that is filled at a steady rate.

The state of a bucket is one number, the time at which it is full again. A bucket that is full needs
no state, so a client that is gone costs no memory.
"""

import math
from dataclasses import dataclass
from typing import Literal

_ROUNDING = 1e-6  # tokens that sums of floating-point times may lack

Unit = Literal["requests", "rows"]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """So many requests or rows a second; at once what a second brings, and at least one.

    Attributes:
        unit: what is limited
        per_second: the tokens that come each second
        key: the name of the API key that it limits; empty for the limit of the whole service
    """

    unit: Unit
    per_second: float
    key: str = ""

    @property
    def name(self) -> str:
        """The name of the limit in headers."""
        return f"key-{self.unit}" if self.key else self.unit

    @property
    def bucket(self) -> str:
        """The name of the bucket's state."""
        return f"{self.unit} {self.key}"

    @property
    def capacity(self) -> float:
        """The tokens of a full bucket."""
        return max(1.0, self.per_second)

    def tokens(self, full_at: float, now: float) -> float:
        """Return the tokens in the bucket; fewer than none are a debt."""
        return self.capacity - max(0.0, full_at - now) * self.per_second

    def take(self, tokens: float, full_at: float, now: float) -> float:
        """Return the time at which the bucket is full after so many tokens were taken."""
        return max(full_at, now) + tokens / self.per_second

    def seconds_until_token(self, full_at: float, now: float) -> float:
        """Return the seconds until the bucket has a token."""
        missing = 1.0 - self.tokens(full_at, now)
        return missing / self.per_second if missing > _ROUNDING else 0.0

    def policy(self) -> str:
        """Return the limit as an item of the header `RateLimit-Policy`."""
        window = math.ceil(self.capacity / self.per_second)
        unit = "" if self.unit == "requests" else f';qu="{self.unit}"'
        return f'"{self.name}";q={int(self.capacity)};w={window}{unit}'

    def remaining(self, full_at: float, now: float) -> str:
        """Return the bucket's state as an item of the header `RateLimit`."""
        tokens = max(0, math.floor(self.tokens(full_at, now) + _ROUNDING))
        return f'"{self.name}";r={tokens};t={math.ceil(max(0.0, full_at - now))}'
