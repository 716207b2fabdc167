"""How long work takes here, by lane: a running mean of what was measured."""

from .call import Lane

_GUESS = 3e-10  # seconds a multiply-add on one core that waits for memory; until one is measured
_NEWEST = 0.2  # of the mean


class CostModel:
    """Changed by compute threads; a torn update would only be a worse estimate."""

    def __init__(self) -> None:
        self._seconds_per_work = dict.fromkeys(Lane, _GUESS)

    def learn(self, lane: Lane, work: float, seconds: float) -> None:
        if work > 0:
            known = self._seconds_per_work[lane]
            self._seconds_per_work[lane] = known + _NEWEST * (seconds / work - known)

    def seconds(self, lane: Lane, work: float) -> float:
        return work * self._seconds_per_work[lane]
