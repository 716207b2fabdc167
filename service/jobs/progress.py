"""Reports the progress of a job to its client, to the metrics and to the count of its starts."""

import time

from .batch_store import StoredJob, record_progress, update_batch
from .cancellation import CancellationCheck
from .job_context import JobContext
from .schemas import BatchObject, RequestCounts

_REPORT_INTERVAL_S = 1.0  # between updates of the batch that the client reads


class ProgressReporter:
    """Progress callback of one job. It also raises Interrupted when the job must stop."""

    def __init__(
        self, job: StoredJob, context: JobContext, total: int, check: CancellationCheck
    ) -> None:
        self._job = job
        self._context = context
        self._total = total
        self._check = check
        self._reported_at = 0.0
        self._last: tuple[int, int] | None = None  # rows and failed rows of the call before

    def __call__(self, rows: int, failed: int, fraction: float) -> None:
        self._check()
        self._count_rows(rows, failed)
        if time.monotonic() - self._reported_at >= _REPORT_INTERVAL_S:
            self._reported_at = time.monotonic()
            self._report(rows, failed)

    def on_all_scored(self) -> None:
        """Set the status `finalizing`: all rows are scored and the outputs are being written."""

        def finalizing(batch: BatchObject) -> BatchObject:
            if batch.status != "in_progress":
                return batch
            update = {"status": "finalizing", "finalizing_at": int(time.time())}
            return batch.model_copy(update=update)

        update_batch(self._context.database, self._job, finalizing)

    def _count_rows(self, rows: int, failed: int) -> None:
        if self._last is None:  # rows that earlier starts of the job finished
            record_progress(self._context.database, self._job, rows)
        else:
            rows_before, failed_before = self._last
            scored = rows - failed - (rows_before - failed_before)
            self._context.count_rows(self._job.spec.model, scored, failed - failed_before)
        self._last = rows, failed

    def _report(self, rows: int, failed: int) -> None:
        counts = RequestCounts(total=self._total, completed=rows - failed, failed=failed)
        percent = round(100 * rows / max(1, self._total), 1)
        update = {"request_counts": counts, "progress": percent}
        update_batch(
            self._context.database, self._job, lambda batch: batch.model_copy(update=update)
        )
