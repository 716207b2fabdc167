"""How far a job is: for its client, for the metrics, and for whoever must know that it gets on."""

import time

from .batch_store import Job, change, got_on
from .cancellation import CancellationCheck
from .job_context import JobContext
from .schemas import BatchObject, RequestCounts

_SAY = 1.0  # seconds between what is said to the client


class Progress:
    """Says how far a job is, to its client and to the metrics; and stops it when it is to stop."""

    def __init__(self, job: Job, shop: JobContext, total: int, watch: CancellationCheck) -> None:
        self._job = job
        self._shop = shop
        self._total = total
        self._watch = watch
        self._said_at = 0.0
        self._counted: tuple[int, int] | None = None

    def __call__(self, rows: int, failed: int, fraction: float) -> None:
        self._watch()
        self._count(rows, failed)
        if time.monotonic() - self._said_at >= _SAY:
            self._said_at = time.monotonic()
            self._say(rows, failed)

    def finishing(self) -> None:
        def finalizing(batch: BatchObject) -> BatchObject:
            if batch.status != "in_progress":
                return batch
            times = {"status": "finalizing", "finalizing_at": int(time.time())}
            return batch.model_copy(update=times)

        change(self._shop.database, self._job.id, finalizing)

    def _count(self, rows: int, failed: int) -> None:
        if self._counted is None:  # these were finished before
            got_on(self._shop.database, self._job.id, rows)
        else:
            before, failed_before = self._counted
            scored = rows - failed - (before - failed_before)
            self._shop.count(self._job.spec.model, scored, failed - failed_before)
        self._counted = rows, failed

    def _say(self, rows: int, failed: int) -> None:
        counts = RequestCounts(total=self._total, completed=rows - failed, failed=failed)
        percent = round(100 * rows / max(1, self._total), 1)
        told = {"request_counts": counts, "progress": percent}
        change(self._shop.database, self._job.id, lambda batch: batch.model_copy(update=told))
