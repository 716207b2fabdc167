"""`serve`: the app behind uvicorn, with a stop that loses no request.

SIGTERM: unready at once, serving on for drain_delay so that balancers notice, then no new
connections, and drain_timeout for requests in flight; exit 0. SIGINT skips the delay. SIGHUP does
nothing.
"""

import math
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from types import FrameType

import uvicorn

from .app import Application, create_app
from .context import context_of
from .errors import StartError
from .health import Health
from .http.protocol import BoundedProtocol
from .logging import Log, logging_captured, stderr_captured, stderr_log
from .settings import Settings
from .workers.channel import WorkerChannel
from .workers.supervisor import Supervisor

_KEEP_ALIVE = 75  # seconds; longer than balancers hold idle connections, so that they close first


def serve(settings: Settings) -> None:
    """Serve until a signal says to stop.

    Raises:
        StartError: no such repository or device, or an address that cannot be listened on.
    """
    log = stderr_log(settings.log_level)
    with logging_captured(log), _hangup_ignored(log):
        if settings.workers > 1:
            _serve_with_workers(_shared_out(settings), log)
        else:
            _serve_alone(settings, log)
    log.info("stopped")


def serve_as_worker(
    settings: Settings, listener: socket.socket, folder: Path, slot: int, generation: int
) -> None:
    """One of several processes that serve together; the others may be serving already."""
    log = stderr_log(settings.log_level).bind(worker=slot)
    with logging_captured(log), stderr_captured(log), _hangup_ignored(log):
        try:
            app = create_app(settings, log=log, peers=WorkerChannel(folder, slot, settings.workers))
            if generation > 0:  # others take the connections that this one is not ready for
                context_of(app).repository.load()
            _run(app, _config(app, settings), listener)
        except Exception as error:
            if not isinstance(error, StartError):
                log.exception("worker_failed")
                raise SystemExit(1) from None
            raise


def _serve_alone(settings: Settings, log: Log) -> None:
    with stderr_captured(log):
        app = create_app(settings, log=log)
        config = _config(app, settings)
        with _listen(settings.host, settings.port) as listener:
            _say_where(log, listener, settings)
            _run(app, config, listener)


def _serve_with_workers(settings: Settings, log: Log) -> None:
    with _listen(settings.host, settings.port) as listener:
        _say_where(log, listener, settings)
        Supervisor(serve_as_worker, settings, listener, log).supervise()


def _shared_out(settings: Settings) -> Settings:
    """The settings of each worker: its part of the threads, unless their number was told."""
    if "threads" in settings.model_fields_set:
        return settings
    threads = max(1, settings.threads // settings.workers)
    return settings.model_copy(update={"threads": threads})


def _run(app: Application, config: uvicorn.Config, listener: socket.socket) -> None:
    context = context_of(app)
    DrainingServer(config, context.health, context.settings.drain_delay).run(sockets=[listener])


def _config(app: Application, settings: Settings) -> uvicorn.Config:
    if settings.tls_keyfile is not None and settings.tls_certfile is None:
        raise StartError("tls_keyfile: expected tls_certfile beside it, got none")
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # nothing here depends on who asks, or from where
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout),
        ssl_certfile=settings.tls_certfile,
        ssl_keyfile=settings.tls_keyfile,
    )
    try:
        config.load()
    except OSError as error:  # ssl's own errors are such, too
        raise StartError(f"tls: expected a certificate and its key, got: {error}") from None
    return config


class DrainingServer(uvicorn.Server):
    """uvicorn, but a SIGTERM first makes it unready, and it then ends with exit code 0."""

    def __init__(self, config: uvicorn.Config, health: Health, delay: float) -> None:
        super().__init__(config)
        self._health = health
        self._delay = delay
        self._stop_at = math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The signal handler; a second signal ends the delay, a second SIGINT the waiting too."""
        again = self._health.draining
        self._health.draining = True
        self._stop_at = monotonic() + self._delay
        if again or sig == signal.SIGINT:
            self.force_exit = self.should_exit and sig == signal.SIGINT
            self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)


@contextmanager
def _hangup_ignored(log: Log) -> Iterator[None]:
    """SIGHUP, which would end the process without draining, is logged and does nothing else."""

    def ignore(sig: int, frame: FrameType | None) -> None:
        log.info("sighup_ignored")

    before = signal.signal(signal.SIGHUP, ignore)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror}") from None


def _say_where(log: Log, listener: socket.socket, settings: Settings) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    scheme = "http" if settings.tls_certfile is None else "https"
    log.info(
        "serving",
        url=f"{scheme}://{shown}:{port}",
        workers=settings.workers,
        threads=settings.threads,
    )
