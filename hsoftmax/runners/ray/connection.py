"""A node of a Ray cluster for as long as there is work, and quietly."""

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

_PATIENCE = 10  # seconds, for a cluster to answer


@contextmanager
def join_cluster(address: str | None) -> Iterator[None]:
    """Of the cluster at `address`; of the one that there is, or a new one, where it is None.

    Raises:
        ScoringError: there is none at that address, or it could not do the work.
    """
    # What Ray has to tell is in its own logs: here it would stand between the lines of the bar.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    with (
        Path(os.devnull).open("w") as nowhere,
        redirect_stdout(nowhere),
        warnings.catch_warnings(action="ignore"),
    ):
        with _no_stderr(nowhere.fileno()):
            _join(address)
        try:
            yield
        except ray.exceptions.RayError as error:
            raise ScoringError(f"ray: the work could not be done: {_last(error)}") from None
        finally:
            ray.shutdown()


def _join(address: str | None) -> None:
    _expect_answer(address or os.environ.get("RAY_ADDRESS", ""))
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ScoringError(f"address: expected a Ray cluster, got: {_last(error)}") from None


def _expect_answer(address: str) -> None:
    """Ray itself would go on trying for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE):
            pass
    except (OSError, ValueError) as error:
        raise ScoringError(f"address: expected a Ray cluster at {address}, got: {error}") from None


def _last(error: Exception) -> str:
    """Ray's reasons stand below the traces of those who passed them on."""
    return str(error).strip().splitlines()[-1]


@contextmanager
def _no_stderr(instead: int) -> Iterator[None]:
    """For a library that writes to it past Python."""
    kept = os.dup(2)
    try:
        os.dup2(instead, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
