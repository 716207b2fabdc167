"""Holds the ports of gRPC and of metrics while the service runs.

Every worker listens on them, so the process that starts the workers chooses their numbers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from hsoftmax.service.errors import StartError
from hsoftmax.service.settings import Settings
from hsoftmax.service.workers.listener import hold_port

_GRPC_PACKAGES = ("grpc", "grpc_health", "grpc_reflection")


@contextmanager
def grpc_port_held(settings: Settings) -> Iterator[Settings]:
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
def metrics_port_held(settings: Settings) -> Iterator[Settings]:
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
