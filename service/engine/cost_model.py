"""Estimates how long a cost in multiply-adds takes on this machine.

The executor reports every batch; the scheduler asks for estimates.
"""

from .call import Lane

# One core that waits for memory: the estimate before anything is measured.
_INITIAL_SECONDS_PER_COST = 3e-10
_NEWEST_WEIGHT = 0.2  # of the newest measurement in the running mean


class CostModel:
    """A running mean of seconds per multiply-add, for each lane.

    Compute threads update it without a lock: a lost update only makes an estimate worse.
    """

    def __init__(self) -> None:
        self._seconds_per_cost = dict.fromkeys(Lane, _INITIAL_SECONDS_PER_COST)

    def observe(self, lane: Lane, cost: float, seconds: float) -> None:
        """Add a measurement to the lane's mean."""
        if cost > 0:
            mean = self._seconds_per_cost[lane]
            self._seconds_per_cost[lane] = mean + _NEWEST_WEIGHT * (seconds / cost - mean)

    def seconds(self, lane: Lane, cost: float) -> float:
        """Estimated seconds of a cost in a lane."""
        return cost * self._seconds_per_cost[lane]
