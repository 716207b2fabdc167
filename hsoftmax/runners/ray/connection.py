"""Connects this process to a Ray cluster while a job runs, and silences Ray's output."""

import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import ray
import ray.data

from hsoftmax.scoring import ScoringError

_CONNECT_TIMEOUT_S = 10


@contextmanager
def join_cluster(address: str | None) -> Iterator[None]:
    """Joins the cluster at `address` until the block ends.

    Without an address it joins the running cluster, or starts a new one.

    Raises:
        ScoringError: there is no cluster at that address, or the cluster could not do the work.
    """
    # Ray has logs of its own; its output here would break up the progress bar.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    with (
        Path(os.devnull).open("w") as devnull,
        redirect_stdout(devnull),
        warnings.catch_warnings(action="ignore"),
    ):
        with _redirect_stderr(devnull.fileno()):
            _init_ray(address)
        try:
            yield
        except ray.exceptions.RayError as error:
            raise ScoringError(f"ray: the work could not be done: {_last_line(error)}") from None
        finally:
            ray.shutdown()


def _init_ray(address: str | None) -> None:
    _expect_listening(address or os.environ.get("RAY_ADDRESS", ""))
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ScoringError(f"address: expected a Ray cluster, got: {_last_line(error)}") from None


def _expect_listening(address: str) -> None:
    """Raises ScoringError unless something listens there. Ray itself would retry for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S):
            pass
    except (OSError, ValueError) as error:
        raise ScoringError(f"address: expected a Ray cluster at {address}, got: {error}") from None


def _last_line(error: Exception) -> str:
    """Returns the last line of a message: Ray puts its reason below the tracebacks."""
    return str(error).strip().splitlines()[-1]


@contextmanager
def _redirect_stderr(descriptor: int) -> Iterator[None]:
    """Redirects file descriptor 2 until the block ends; Ray's C++ code writes to it directly."""
    saved = os.dup(2)
    try:
        os.dup2(descriptor, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
