"""Opens the socket on which the service listens."""

import socket

from .errors import StartError


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises StartError if the address cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror}") from None
