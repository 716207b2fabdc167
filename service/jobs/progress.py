"""How far a job is: for its client, for the metrics, and for whoever must know that it gets on."""

import time

from .batch_store import StoredJob, record_progress, update_batch
from .cancellation import CancellationCheck
from .job_context import JobContext
from .schemas import BatchObject, RequestCounts

_REPORT_INTERVAL_S = 1.0  # seconds between what is said to the client


class ProgressReporter:
    """Says how far a job is, to its client and to the metrics; and stops it when it is to stop."""

    def __init__(
        self, job: StoredJob, context: JobContext, total: int, check: CancellationCheck
    ) -> None:
        self._job = job
        self._context = context
        self._total = total
        self._check = check
        self._reported_at = 0.0
        self._counted: tuple[int, int] | None = None

    def __call__(self, rows: int, failed: int, fraction: float) -> None:
        self._check()
        self._count_rows(rows, failed)
        if time.monotonic() - self._reported_at >= _REPORT_INTERVAL_S:
            self._reported_at = time.monotonic()
            self._report(rows, failed)

    def on_all_scored(self) -> None:
        def finalizing(batch: BatchObject) -> BatchObject:
            if batch.status != "in_progress":
                return batch
            update = {"status": "finalizing", "finalizing_at": int(time.time())}
            return batch.model_copy(update=update)

        update_batch(self._context.database, self._job.id, finalizing)

    def _count_rows(self, rows: int, failed: int) -> None:
        if self._counted is None:  # these were finished before
            record_progress(self._context.database, self._job.id, rows)
        else:
            before, failed_before = self._counted
            scored = rows - failed - (before - failed_before)
            self._context.count_rows(self._job.spec.model, scored, failed - failed_before)
        self._counted = rows, failed

    def _report(self, rows: int, failed: int) -> None:
        counts = RequestCounts(total=self._total, completed=rows - failed, failed=failed)
        percent = round(100 * rows / max(1, self._total), 1)
        update = {"request_counts": counts, "progress": percent}
        update_batch(
            self._context.database, self._job.id, lambda batch: batch.model_copy(update=update)
        )
