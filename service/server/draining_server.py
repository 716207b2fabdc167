"""A uvicorn server that is not ready for a while before it stops, and loses no request."""

import asyncio
import math
import signal
import socket
from collections.abc import Callable
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from hsoftmax.service.health import Health
from hsoftmax.service.http.certificate import CertificateFiles

if TYPE_CHECKING:
    from hsoftmax.service.grpc.server import GrpcServer  # the module needs an extra

_TICKS_PER_CHECK = 10  # of the certificate: a second


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
