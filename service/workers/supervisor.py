"""`--workers`: several processes behind one listening socket, watched and replaced.

They are spawned, not forked, as ONNX Runtime's threads do not survive a fork. All inherit the same
socket, so that the connections that one would have taken go to the others while it is replaced; a
successor takes none before its bundles are loaded. Weights are mapped files, in memory once.
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

from .channel import ask_whether_alive

CANNOT_START = 78  # an exit code that says so
_LOOK = 5.0  # seconds between asking a worker whether it is alive
_SILENCE = 30.0  # seconds that one which once answered may say nothing
_SETTLED = 10.0  # one that ends sooner than this ended at its start
_LONGEST_PAUSE = 30.0  # seconds before the next try
_GRACE = 5.0  # seconds beyond what workers are given to end

Run = Callable[[Settings, socket.socket, Path, int, int], None]


@dataclass(slots=True)
class Worker:
    """One place among the workers, and the process that holds it now."""

    slot: int
    process: BaseProcess | None = None
    generation: int = 0
    started: float = 0.0
    failures: int = 0
    start_at: float = 0.0
    look_at: float = 0.0
    heard: float | None = None  # when it last said that it is alive
    kill_at: float | None = None


class Supervisor:
    """The process above the workers; it serves nothing itself."""

    def __init__(self, run: Run, settings: Settings, listener: socket.socket, log: Log) -> None:
        self._run = run
        self._settings = settings
        self._listener = listener
        self._log = log
        self._folder = Path(tempfile.mkdtemp(prefix="hsoftmax-"))  # which only we can enter
        self._workers = [Worker(slot) for slot in range(settings.workers)]
        self._stopping = False

    def supervise(self) -> None:
        """Until a signal says to stop, and all workers have.

        Raises:
            StartError: the first workers could not start.
        """
        handlers = {one: signal.signal(one, self._pass_on) for one in _SIGNALS}
        try:
            while not self._stopping:
                for worker in self._workers:
                    self._attend(worker)
                self._wait(0.2)
            self._join()
        finally:
            self._kill()
            for one, handler in handlers.items():
                signal.signal(one, handler)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _pass_on(self, sig: int, frame: FrameType | None) -> None:
        self._stopping = True
        for process in self._running():
            with suppress(OSError):
                os.kill(process.pid or 0, sig)

    def _attend(self, worker: Worker) -> None:
        now = monotonic()
        if worker.process is None:
            if now >= worker.start_at:
                self._start(worker)
        elif (code := worker.process.exitcode) is not None:
            self._ended(worker, code)
        elif worker.kill_at is not None:
            if now >= worker.kill_at:
                worker.process.kill()
        elif now >= worker.look_at:
            self._look(worker)

    def _start(self, worker: Worker) -> None:
        arguments = (self._settings, self._listener, self._folder, worker.slot, worker.generation)
        context = multiprocessing.get_context("spawn")
        worker.process = context.Process(
            target=work, args=(self._run, *arguments), name=f"worker-{worker.slot}"
        )
        with _without_hangups():
            worker.process.start()
        if self._stopping:  # since we looked
            worker.process.terminate()
        worker.started = monotonic()
        worker.look_at = worker.started + _LOOK
        worker.heard = worker.kill_at = None
        worker.generation += 1

    def _ended(self, worker: Worker, code: int) -> None:
        if code == CANNOT_START and worker.generation == 1:
            raise StartError(why(self._folder))
        early = monotonic() - worker.started < _SETTLED
        worker.failures = worker.failures + 1 if early else 0
        pause = min(_LONGEST_PAUSE, 2.0 ** (worker.failures - 1)) if early else 0.0
        worker.start_at = monotonic() + pause
        worker.process = None
        self._log.error("worker_ended", worker=worker.slot, code=code, replaced_in_s=pause)

    def _look(self, worker: Worker) -> None:
        """Replace a worker that says it is stuck, or once spoke and has long been silent."""
        alive = ask_whether_alive(self._folder, worker.slot)
        now = monotonic()
        worker.look_at = now + _LOOK
        if alive:
            worker.heard = now
        silent = alive is None and worker.heard is not None and now - worker.heard > _SILENCE
        if (alive is False or silent) and worker.process is not None:
            self._log.error("worker_stuck", worker=worker.slot, silent=silent)
            worker.process.terminate()
            worker.kill_at = now + self._settings.drain_timeout + _GRACE

    def _join(self) -> None:
        """Give workers the time that their draining may take."""
        until = monotonic() + self._settings.drain_delay + self._settings.drain_timeout + _GRACE
        while self._running() and monotonic() < until:
            self._wait(0.2)

    def _wait(self, seconds: float) -> None:
        """Until a worker ends, or for so long."""
        connection.wait([process.sentinel for process in self._running()], seconds)

    def _running(self) -> list[BaseProcess]:
        processes = (worker.process for worker in self._workers)
        return [one for one in processes if one is not None and one.exitcode is None]

    def _kill(self) -> None:
        for process in self._running():
            process.kill()
            process.join()


_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def _without_hangups() -> Iterator[None]:
    """A process that is started inherits that SIGHUP is ignored, until it says otherwise."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def work(
    run: Run, settings: Settings, listener: socket.socket, folder: Path, slot: int, generation: int
) -> None:
    """A worker's whole life; in its own process."""
    os.setpgrp()  # else Ctrl-C would be heard twice: from the terminal, and from above
    _end_with(multiprocessing.parent_process())
    try:
        run(settings, listener, folder, slot, generation)
    except StartError as error:
        (folder / "why").write_text(str(error))
        raise SystemExit(CANNOT_START) from None


def why(folder: Path) -> str:
    """Why a worker could not start."""
    return (folder / "why").read_text()


def _end_with(parent: BaseProcess | None) -> None:
    """Stop, as told by a signal, when the process above ends without saying so."""

    def wait() -> None:
        if parent is not None:
            connection.wait([parent.sentinel])
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="parent").start()
