"""Opens the sockets on which the service listens, and holds the ports that processes share."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from hsoftmax.service.errors import StartError


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a listening socket; with `shared` on a held port, for several processes.

    Raises:
        StartError: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048, reuse_port=shared)
    except OSError as error:
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror}") from None


@contextmanager
def hold_port(host: str, port: int) -> Iterator[int]:
    """Hold a port on which processes of this service listen with SO_REUSEPORT; yield its number.

    The system would let another service of the same user listen on the port too, and give it some
    of the connections. So the port must be free at first, and no other process gets it afterwards.

    Raises:
        StartError: another process listens on the port.
    """
    with listen(host, port) as listening:
        family, number = listening.family, listening.getsockname()[1]
    with socket.socket(family) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            held.bind((host, number))
        except OSError as error:
            raise StartError(f"cannot hold {host}:{number}: {error.strerror}") from None
        yield number
