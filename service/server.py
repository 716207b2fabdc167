"""`serve` runs the app with uvicorn, and stops without losing a request.

After SIGTERM the service reports that it is not ready. It serves on for drain_delay, so that load
balancers notice. Then it accepts no connections, waits up to drain_timeout for open requests, and
exits with 0. SIGINT skips the delay. SIGHUP is ignored.
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

_KEEP_ALIVE_TIMEOUT_S = (
    75  # longer than load balancers keep idle connections, so that they close first
)


def serve(settings: Settings) -> None:
    """Serve until a signal stops the process.

    Raises:
        StartError: the repository or the device does not exist, or the address cannot be used.
    """
    log = stderr_log(settings.log_level)
    with logging_captured(log), _sighup_ignored(log):
        if settings.workers > 1:
            _serve_with_workers(_settings_per_worker(settings), log)
        else:
            _serve_alone(settings, log)
    log.info("stopped")


def serve_as_worker(
    settings: Settings, listener: socket.socket, folder: Path, slot: int, generation: int
) -> None:
    """Serve as one of several worker processes; the others may be serving already."""
    log = stderr_log(settings.log_level).bind(worker=slot)
    with logging_captured(log), stderr_captured(log), _sighup_ignored(log):
        try:
            app = create_app(
                settings, log=log, channel=WorkerChannel(folder, slot, settings.workers)
            )
            if generation > 0:  # the other workers accept connections until this one is ready
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
            _log_address(log, listener, settings)
            _run(app, config, listener)


def _serve_with_workers(settings: Settings, log: Log) -> None:
    with _listen(settings.host, settings.port) as listener:
        _log_address(log, listener, settings)
        Supervisor(serve_as_worker, settings, listener, log).supervise()


def _settings_per_worker(settings: Settings) -> Settings:
    """Return the settings of a worker: its share of the threads, unless their number was set."""
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
        ws="none",  # the protocol ignores upgrades
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # nothing depends on the client's address
        timeout_keep_alive=_KEEP_ALIVE_TIMEOUT_S,
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout),
        ssl_certfile=settings.tls_certfile,
        ssl_keyfile=settings.tls_keyfile,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is an OSError too
        raise StartError(f"tls: expected a certificate and its key, got: {error}") from None
    return config


class DrainingServer(uvicorn.Server):
    """uvicorn server that is not ready for a delay after SIGTERM, and then exits with 0."""

    def __init__(self, config: uvicorn.Config, health: Health, delay: float) -> None:
        super().__init__(config)
        self._health = health
        self._delay = delay
        self._stop_at = math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal. A second one ends the delay; a second SIGINT drops open requests too."""
        again = self._health.draining
        self._health.draining = True
        self._stop_at = monotonic() + self._delay
        if again or sig == signal.SIGINT:
            self.force_exit = self.should_exit and sig == signal.SIGINT
            self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Check the end of the delay. uvicorn calls it ten times a second."""
        if monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)


@contextmanager
def _sighup_ignored(log: Log) -> Iterator[None]:
    """Log SIGHUP and do nothing else: by default it ends the process without draining."""

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


def _log_address(log: Log, listener: socket.socket, settings: Settings) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    scheme = "http" if settings.tls_certfile is None else "https"
    log.info(
        "serving",
        url=f"{scheme}://{shown}:{port}",
        workers=settings.workers,
        threads=settings.threads,
    )
