"""The gRPC server: starts and stops beside the HTTP server, in the same event loop."""

from collections.abc import Iterable
from threading import Lock

import grpc

from hsoftmax.service.context import AppContext
from hsoftmax.service.errors import StartError
from hsoftmax.service.http.certificate import CertificateFiles
from hsoftmax.service.logging import Log
from hsoftmax.service.settings import Settings

from .handler import MethodHandler
from .health import health_methods
from .inference_methods import inference_methods
from .method import Method
from .reflection import reflection_methods

_MAX_METADATA_BYTES = 32 * 2**10  # as the headers of HTTP
_KEEP_ALIVE_MS = 60_000  # a connection whose peer has vanished is closed after it and the timeout
_KEEP_ALIVE_TIMEOUT_MS = 20_000
_ALLOWED_PING_INTERVAL_MS = 10_000


class GrpcServer:
    """A gRPC server on the port of the settings, from `start` to `stop`."""

    def __init__(self, context: AppContext, methods: Iterable[Method]) -> None:
        settings = context.settings
        self._handler = MethodHandler([*methods, *standard_methods()], context)
        self._server = grpc.aio.server(handlers=[self._handler], options=_options(settings))
        self.port = _open_port(self._server, settings, context.log)

    async def start(self) -> None:
        """Accept calls from now on."""
        await self._server.start()

    async def stop(self, seconds: float) -> None:
        """Refuse new calls, end streams, and wait so long for other calls; then cancel them."""
        self._handler.stopping.set()
        await self._server.stop(seconds)


def standard_methods() -> list[Method]:
    """Return the methods of the health service and the reflection service."""
    return [*health_methods(), *reflection_methods()]


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 1),  # workers share the port
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        ("grpc.max_send_message_length", -1),  # the limits of answers are those of HTTP
        ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.keepalive_time_ms", _KEEP_ALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEP_ALIVE_TIMEOUT_MS),
        ("grpc.http2.min_ping_interval_without_data_ms", _ALLOWED_PING_INTERVAL_MS),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def _open_port(server: "grpc.aio.Server", settings: Settings, log: Log) -> int:
    """Bind the port, with the certificate of HTTP if there is one. Raises StartError."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{host}:{settings.grpc_port}"
    try:
        if settings.tls_certfile is None:
            port: int = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, _credentials(settings, log))
    except RuntimeError:
        raise StartError(f"cannot listen on {address} for gRPC") from None
    return port


def _credentials(settings: Settings, log: Log) -> "grpc.ServerCredentials":
    """Return credentials that look at the files of the certificate at each new connection."""
    assert settings.tls_certfile is not None
    lock = Lock()  # connections come on threads of gRPC
    try:
        files = CertificateFiles(
            settings.tls_certfile, settings.tls_keyfile, log.bind(server="grpc")
        )
        first = _configuration(files)
    except OSError as error:
        raise StartError(f"tls: cannot read {error.filename}: {error.strerror}") from None

    def fetch() -> "grpc.ServerCertificateConfiguration | None":
        with lock:
            return _configuration(files) if files.have_changed() else None

    return grpc.dynamic_ssl_server_credentials(first, fetch)


def _configuration(files: CertificateFiles) -> "grpc.ServerCertificateConfiguration":
    return grpc.ssl_server_certificate_configuration([files.read()])


def create_grpc_server(context: AppContext) -> GrpcServer:
    """Create the server of all methods; it needs a running event loop. Raises StartError."""
    return GrpcServer(context, inference_methods())
