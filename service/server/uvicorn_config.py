"""The configuration of uvicorn: the HTTP protocol, timeouts and TLS of the settings."""

import math

import uvicorn

from hsoftmax.service.app import Application
from hsoftmax.service.errors import StartError
from hsoftmax.service.http.protocol import BoundedProtocol
from hsoftmax.service.settings import Settings

_KEEP_ALIVE_TIMEOUT_S = 75  # load balancers close idle connections sooner


def uvicorn_config(app: Application, settings: Settings) -> uvicorn.Config:
    """Return the loaded configuration.

    Raises:
        StartError: the certificate or its key cannot be used.
    """
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
