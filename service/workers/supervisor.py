"""Runs several worker processes behind one listening socket, and replaces those that fail.

Workers are spawned, not forked, because ONNX Runtime's threads do not survive a fork. All inherit
the same socket, so the others take the connections while one is replaced. A successor accepts
connections once its bundles are loaded. Weights are mapped files, which are in memory once.

`serve` runs it for the setting `workers`.
"""

import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic
from types import FrameType

from hsoftmax.service.errors import StartError
from hsoftmax.service.logging import Log
from hsoftmax.service.settings import Settings

from .channel import WorkerRecords, request_liveness
from .exit_code import signal_name

CANNOT_START = 78  # exit code of a worker that raised StartError
_PROBE_INTERVAL_S = 5.0
_SILENCE_TIMEOUT_S = 30.0  # a worker that has answered once must answer again within it
_MIN_UPTIME_S = 10.0  # a worker that ends earlier has failed at its start
_MAX_PAUSE_S = 30.0  # before a worker that failed at its start is started again
_GRACE_S = 5.0  # added to the time that workers have to drain
_MAX_FOLDER_BYTES = 70  # of TMPDIR, so that a path of a socket in it is not too long

Run = Callable[[Settings, socket.socket, Path, WorkerRecords, int, int], None]


@dataclass(slots=True)
class Worker:
    """One slot for a worker, and the process that runs in it now."""

    slot: int
    process: BaseProcess | None = None
    generation: int = 0
    started: float = 0.0
    failures: int = 0
    start_at: float = 0.0
    probe_at: float = 0.0
    last_alive: float | None = None  # time of its last positive answer to a probe
    kill_at: float | None = None


class Supervisor:
    """The parent process of the workers; it answers no requests."""

    def __init__(
        self,
        run: Run,
        settings: Settings,
        listener: socket.socket,
        log: Log,
        log_descriptor: int = 2,
    ) -> None:
        self._run = run
        self._settings = settings
        self._listener = listener
        self._log = log
        self._folder = _private_folder()
        self._records = WorkerRecords.create(settings.workers, log_descriptor)
        self._workers = [Worker(slot) for slot in range(settings.workers)]
        self._stopping = False

    def supervise(self) -> None:
        """Start and watch the workers until a signal stops them.

        Raises:
            StartError: the first workers could not start.
        """
        handlers = {one: signal.signal(one, self._pass_on) for one in _SIGNALS}
        try:
            while not self._stopping:
                for worker in self._workers:
                    self._check(worker)
                self._wait(0.2)
            self._join()
        finally:
            self._kill_running()
            for one, handler in handlers.items():
                signal.signal(one, handler)
            shutil.rmtree(self._folder, ignore_errors=True)
            self._records.close()

    def _pass_on(self, sig: int, frame: FrameType | None) -> None:
        self._stopping = True
        for process in self._running():
            with suppress(OSError):
                os.kill(process.pid or 0, sig)

    def _check(self, worker: Worker) -> None:
        now = monotonic()
        if worker.process is None:
            if now >= worker.start_at:
                self._start(worker)
        elif (code := worker.process.exitcode) is not None:
            self._on_exit(worker, code)
        elif worker.kill_at is not None:
            if now >= worker.kill_at:
                worker.process.kill()
        elif now >= worker.probe_at:
            self._probe(worker)

    def _start(self, worker: Worker) -> None:
        shared = (self._settings, self._listener, self._folder, self._records)
        context = multiprocessing.get_context("spawn")
        worker.process = context.Process(
            target=run_worker,
            args=(self._run, *shared, worker.slot, worker.generation),
            name=f"worker-{worker.slot}",
        )
        with _without_hangups():
            worker.process.start()
        if self._stopping:  # since we looked
            worker.process.terminate()
        worker.started = monotonic()
        worker.probe_at = worker.started + _PROBE_INTERVAL_S
        worker.last_alive = worker.kill_at = None
        worker.generation += 1

    def _on_exit(self, worker: Worker, code: int) -> None:
        if code == CANNOT_START and worker.generation == 1:
            raise StartError(self._records.start_error.read().decode())
        failed_at_start = monotonic() - worker.started < _MIN_UPTIME_S
        worker.failures = worker.failures + 1 if failed_at_start else 0
        pause = min(_MAX_PAUSE_S, 2.0 ** (worker.failures - 1)) if failed_at_start else 0.0
        worker.start_at = monotonic() + pause
        worker.process = None
        ended = {"code": code, "signal": signal_name(code)}
        self._log.error("worker_ended", worker=worker.slot, **ended, replaced_in_s=pause)

    def _probe(self, worker: Worker) -> None:
        """Replace a worker that reports to be stuck, or that has been silent for too long."""
        alive = request_liveness(self._folder, worker.slot)
        now = monotonic()
        worker.probe_at = now + _PROBE_INTERVAL_S
        if alive:
            worker.last_alive = now
        silent = (
            alive is None
            and worker.last_alive is not None
            and now - worker.last_alive > _SILENCE_TIMEOUT_S
        )
        if (alive is False or silent) and worker.process is not None:
            self._log.error("worker_stuck", worker=worker.slot, silent=silent)
            worker.process.terminate()
            worker.kill_at = now + self._settings.drain_timeout + _GRACE_S

    def _join(self) -> None:
        """Wait for the workers to end, as long as draining may take."""
        until = monotonic() + self._settings.drain_delay + self._settings.drain_timeout + _GRACE_S
        while self._running() and monotonic() < until:
            self._wait(0.2)

    def _wait(self, seconds: float) -> None:
        """Wait until a worker ends, at most so many seconds."""
        connection.wait([process.sentinel for process in self._running()], seconds)

    def _running(self) -> list[BaseProcess]:
        processes = (worker.process for worker in self._workers)
        return [one for one in processes if one is not None and one.exitcode is None]

    def _kill_running(self) -> None:
        for process in self._running():
            process.kill()
            process.join()


_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def _without_hangups() -> Iterator[None]:
    """Start a process that ignores SIGHUP until it sets a handler: the child inherits it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def run_worker(
    run: Run,
    settings: Settings,
    listener: socket.socket,
    folder: Path,
    records: WorkerRecords,
    slot: int,
    generation: int,
) -> None:
    """Run a worker; the target of its process."""
    os.setpgrp()  # else Ctrl-C would be heard twice: from the terminal, and from above
    _stop_with_parent(multiprocessing.parent_process())
    try:
        run(settings, listener, folder, records, slot, generation)
    except StartError as error:
        records.start_error.write(str(error).encode())
        raise SystemExit(CANNOT_START) from None


def _private_folder() -> Path:
    """Create a folder for the workers' sockets that only this user can enter.

    A socket's path has at most 107 bytes: where TMPDIR has a long one, the folder is in /tmp.
    """
    is_long = len(os.fsencode(tempfile.gettempdir())) > _MAX_FOLDER_BYTES
    try:
        return Path(tempfile.mkdtemp(prefix="hsoftmax-", dir="/tmp" if is_long else None))
    except OSError as error:
        raise StartError(
            f"workers: expected a folder for temporary files, got: {error.strerror}: set TMPDIR"
        ) from None


def _stop_with_parent(parent: BaseProcess | None) -> None:
    """Send SIGTERM to this process when the parent process ends, even if it is killed."""

    def wait() -> None:
        if parent is not None:
            connection.wait([parent.sentinel])
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="parent").start()
