"""`serve`: the app behind uvicorn, with a stop that loses no request.

SIGTERM: unready at once, serving on for drain_delay so that balancers notice, then no new
connections, and drain_timeout for requests in flight; exit 0. SIGINT skips the delay.
"""

import math
import signal
import socket
from time import monotonic
from types import FrameType

import uvicorn

from .app import core_of, create_app
from .errors import StartError
from .health import Health
from .log import Log, forward, json_log
from .settings import Settings

_KEEP_ALIVE = 75  # seconds; longer than balancers hold idle connections, so that they close first


def serve(settings: Settings) -> None:
    """Serve until a signal says to stop.

    Raises:
        StartError: no such repository or device, or an address that cannot be listened on.
    """
    log = json_log(settings.log_level)
    app = create_app(settings, log=log)
    listener = _listen(settings.host, settings.port)
    forward("uvicorn", log)
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout),
    )
    _say_where(log, listener, settings)
    DrainingServer(config, core_of(app).health, settings.drain_delay).run(sockets=[listener])
    log.info("stopped")


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


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror}") from None


def _say_where(log: Log, listener: socket.socket, settings: Settings) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    log.info("serving", url=f"http://{shown}:{port}", threads=settings.threads)
