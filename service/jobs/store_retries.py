"""Repeats a transfer between a job and a store that does not answer, for a few minutes.

Download of the input and upload of the output call it. A cancelled job, or one that another process
has taken, stops during a pause.
"""

import time
from collections.abc import Callable

from hsoftmax.service.logging import Log
from hsoftmax.stores.errors import StoreUnavailable

_MAX_OUTAGE_S = 300.0  # a job behind this one waits for it, too
_MAX_PAUSE_S = 30.0
_CHECK_INTERVAL_S = 0.2


def with_retries(
    transfer: Callable[[], None], check: Callable[[], None], log: Log, job_id: str
) -> None:
    """Run the transfer until the store answers. `check` raises Interrupted if the job must stop.

    Raises:
        StoreUnavailable: the store did not answer for five minutes.
    """
    failed_at: float | None = None
    pause = 1.0
    while True:
        check()
        try:
            return transfer()
        except StoreUnavailable as error:
            log.warning("job_store_failed", batch=job_id, reason=str(error))
            now = time.monotonic()
            failed_at = failed_at or now
            if now + pause - failed_at > _MAX_OUTAGE_S:
                raise
        _wait(pause, check)
        pause = min(2 * pause, _MAX_PAUSE_S)


def _wait(seconds: float, check: Callable[[], None]) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        check()
        time.sleep(min(left, _CHECK_INTERVAL_S))
