"""`serve` runs the app with uvicorn, and stops without losing a request.

After SIGTERM the service reports that it is not ready. It serves on for drain_delay, so that load
balancers notice. Then it accepts no connections, waits up to drain_timeout for open requests, and
exits with 0. SIGINT skips the delay. SIGHUP is ignored.
"""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing import resource_tracker
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from hsoftmax.service.app import Application, create_app
from hsoftmax.service.context import context_of
from hsoftmax.service.errors import StartError
from hsoftmax.service.http.certificate import CertificateFiles
from hsoftmax.service.logging import Log, logging_captured, stderr_captured, stderr_log
from hsoftmax.service.settings import Settings
from hsoftmax.service.workers.channel import WorkerChannel, WorkerRecords
from hsoftmax.service.workers.listener import listen
from hsoftmax.service.workers.supervisor import Supervisor

from .draining_server import DrainingServer
from .held_ports import grpc_port_held, metrics_port_held
from .uvicorn_config import uvicorn_config

if TYPE_CHECKING:
    from hsoftmax.service.grpc.server import GrpcServer  # the module needs an extra

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
        grpc_port_held(settings) as settings,
        metrics_port_held(settings) as settings,
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
        _run(app, uvicorn_config(app, settings), listener)


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
        config = uvicorn_config(app, settings)
        with listener or listen(settings.host, settings.port) as listening:
            _log_address(log, listening, settings)
            _run(app, config, listening)


def _serve_with_workers(
    settings: Settings, listener: socket.socket | None, log: Log, log_descriptor: int
) -> None:
    with _failure_logged(log), listener or listen(settings.host, settings.port) as listening:
        _log_address(log, listening, settings)
        Supervisor(serve_as_worker, settings, listening, log, log_descriptor).supervise()


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
        from hsoftmax.service.grpc.server import create_grpc_server

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
