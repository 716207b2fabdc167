"""`serve` runs the app with uvicorn, and stops without losing a request.

After SIGTERM the service reports that it is not ready. It serves on for drain_delay, so that load
balancers notice. Then it accepts no connections, waits up to drain_timeout for open requests, and
exits with 0. SIGINT skips the delay. SIGHUP is ignored.
"""

import asyncio
import math
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from multiprocessing import resource_tracker
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from .app import Application, create_app
from .context import context_of
from .errors import StartError
from .health import Health
from .http.certificate import CertificateFiles
from .http.protocol import BoundedProtocol
from .logging import Log, logging_captured, stderr_captured, stderr_log
from .settings import Settings
from .workers.channel import WorkerChannel, WorkerRecords
from .workers.listener import hold_port, listen
from .workers.supervisor import Supervisor

if TYPE_CHECKING:
    from .grpc.server import GrpcServer  # the module needs an extra

_GRPC_PACKAGES = ("grpc", "grpc_health", "grpc_reflection")
_TICKS_PER_CHECK = 10  # of the certificate: a second
_KEEP_ALIVE_TIMEOUT_S = (
    75  # longer than load balancers keep idle connections, so that they close first
)
# The event loop accepts one connection of each socket in a round, and a round has a request of
# each busy connection. With one socket, the last of 256 new connections waited for seconds.
_ACCEPTS_PER_ROUND = 32


def serve(
    settings: Settings,
    listener: socket.socket | None = None,
    log_descriptor: int | None = None,
) -> None:
    """Serve until a signal stops the process.

    Without a `listener` it opens one at the address of the settings. With a `log_descriptor` the
    caller has captured stderr, and this is what stderr was before.

    Raises:
        StartError: the repository or the device does not exist, or the address cannot be used.
    """
    log = stderr_log(settings.log_level, 2 if log_descriptor is None else log_descriptor)
    if settings.workers > 1:
        resource_tracker.ensure_running()  # later it would keep the pipe of stderr open
    capture = stderr_captured(log) if log_descriptor is None else nullcontext(log_descriptor)
    with (
        logging_captured(log),
        _sighup_ignored(log),
        capture as descriptor,
        _grpc_port_held(settings) as settings,
        _metrics_port_held(settings) as settings,
    ):
        if settings.workers > 1:
            _serve_with_workers(_settings_per_worker(settings), listener, log, descriptor)
        else:
            _serve_alone(settings, listener, log)
    log.info("stopped")


def serve_as_worker(
    settings: Settings,
    listener: socket.socket,
    folder: Path,
    records: WorkerRecords,
    slot: int,
    generation: int,
) -> None:
    """Serve as one of several worker processes; the others may be serving already."""
    log = stderr_log(settings.log_level, records.log.descriptor).bind(worker=slot)
    with logging_captured(log), stderr_captured(log), _sighup_ignored(log), _failure_logged(log):
        app = create_app(settings, log=log, channel=WorkerChannel(folder, records, slot))
        if generation > 0:  # the other workers accept connections until this one is ready
            context_of(app).repository.load()
        _run(app, _config(app, settings), listener)


@contextmanager
def _failure_logged(log: Log) -> Iterator[None]:
    """Log an unexpected exception and exit with 1: Python would write lines that are no JSON."""
    try:
        yield
    except StartError:
        raise
    except Exception:
        log.exception("service_failed")
        raise SystemExit(1) from None


def _serve_alone(settings: Settings, listener: socket.socket | None, log: Log) -> None:
    with _failure_logged(log):
        app = create_app(settings, log=log)
        config = _config(app, settings)
        with listener or listen(settings.host, settings.port) as listening:
            _log_address(log, listening, settings)
            _run(app, config, listening)


def _serve_with_workers(
    settings: Settings, listener: socket.socket | None, log: Log, log_descriptor: int
) -> None:
    with _failure_logged(log), listener or listen(settings.host, settings.port) as listening:
        _log_address(log, listening, settings)
        Supervisor(serve_as_worker, settings, listening, log, log_descriptor).supervise()


@contextmanager
def _grpc_port_held(settings: Settings) -> Iterator[Settings]:
    """Hold the port of gRPC for all workers; yield the settings with its number.

    Raises:
        StartError: the packages of gRPC are not installed, or the port cannot be used.
    """
    if settings.grpc_port is None:
        yield settings
        return
    missing = [package for package in _GRPC_PACKAGES if find_spec(package) is None]
    if missing:
        raise StartError(
            f"grpc_port: expected the package {missing[0]}, got none: pip install '.[grpc]'"
        )
    with hold_port(settings.host, settings.grpc_port) as port:
        yield settings.model_copy(update={"grpc_port": port})


@contextmanager
def _metrics_port_held(settings: Settings) -> Iterator[Settings]:
    """Hold the port of metrics for all workers; yield the settings with its number and address.

    Raises:
        StartError: the port cannot be used.
    """
    if settings.metrics_port is None:
        yield settings
        return
    if settings.metrics_port and settings.metrics_port in (settings.port, settings.grpc_port):
        raise StartError("metrics_port: expected a port of its own, got that of the service")
    host = settings.metrics_host or settings.host
    with hold_port(host, settings.metrics_port) as port:
        yield settings.model_copy(update={"metrics_port": port, "metrics_host": host})


def _settings_per_worker(settings: Settings) -> Settings:
    """Return the settings of a worker: its share of the threads, unless their number was set."""
    if "threads" in settings.model_fields_set:
        return settings
    threads = max(1, settings.threads // settings.workers)
    return settings.model_copy(update={"threads": threads})


def _run(app: Application, config: uvicorn.Config, listener: socket.socket) -> None:
    context = context_of(app)
    settings = context.settings

    def create_grpc_server() -> "GrpcServer":
        from .grpc.server import create_grpc_server

        return create_grpc_server(context)

    create = None if settings.grpc_port is None else create_grpc_server
    certificate = _certificate_files(settings, context.log)
    server = DrainingServer(config, context.health, settings.drain_delay, create, certificate)
    listeners = [listener, *(listener.dup() for _ in range(_ACCEPTS_PER_ROUND - 1))]
    if settings.metrics_port is None:
        server.run(sockets=listeners)
        return
    host = settings.metrics_host or settings.host
    with listen(host, settings.metrics_port, shared=True) as metrics_listener:
        server.run(sockets=[*listeners, metrics_listener])


def _certificate_files(settings: Settings, log: Log) -> CertificateFiles | None:
    if settings.tls_certfile is None:
        return None
    return CertificateFiles(settings.tls_certfile, settings.tls_keyfile, log.bind(server="http"))


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
    """uvicorn server that is not ready for a delay after SIGTERM, and then exits with 0.

    A gRPC server starts after it in the same event loop, and stops with it.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        health: Health,
        delay: float,
        create_grpc_server: "Callable[[], GrpcServer] | None" = None,
        certificate: CertificateFiles | None = None,
    ) -> None:
        super().__init__(config)
        self._health = health
        self._delay = delay
        self._stop_at = math.inf
        self._create_grpc_server = create_grpc_server
        self._grpc_server: GrpcServer | None = None
        self._certificate = certificate

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start HTTP, then gRPC."""
        await super().startup(sockets)
        if self._create_grpc_server is not None:
            self._grpc_server = self._create_grpc_server()
            await self._grpc_server.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop both at once. uvicorn waits for its tasks before it ends the application."""
        if self._grpc_server is not None:
            seconds = self.config.timeout_graceful_shutdown or 0
            stopping = asyncio.create_task(self._grpc_server.stop(seconds))
            self.server_state.tasks.add(stopping)
            stopping.add_done_callback(self.server_state.tasks.discard)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal. A second one ends the delay; a second SIGINT drops open requests too."""
        again = self._health.draining
        self._health.draining = True
        self._stop_at = monotonic() + self._delay
        if again or sig == signal.SIGINT:
            self.force_exit = self.should_exit and sig == signal.SIGINT
            self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Check the end of the delay, and the certificate. uvicorn calls it ten times a second."""
        if counter % _TICKS_PER_CHECK == 0:
            self._follow_certificate()
        if monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)

    def _follow_certificate(self) -> None:
        """Use a renewed certificate for the connections that come."""
        if self._certificate is not None and self._certificate.have_changed():
            assert self.config.ssl is not None
            self._certificate.load_into(self.config.ssl)


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


def _log_address(log: Log, listener: socket.socket, settings: Settings) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    scheme = "http" if settings.tls_certfile is None else "https"
    grpc = {} if settings.grpc_port is None else {"grpc": f"{shown}:{settings.grpc_port}"}
    metrics = (
        {}
        if settings.metrics_port is None
        else {"metrics": f"{scheme}://{settings.metrics_host}:{settings.metrics_port}/metrics"}
    )
    log.info(
        "serving",
        url=f"{scheme}://{shown}:{port}",
        **grpc,
        **metrics,
        workers=settings.workers,
        threads=settings.threads,
    )
