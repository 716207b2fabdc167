"""Parses the URL of a PostgreSQL database. Importing this needs the extra `postgres`."""

import psycopg  # noqa: F401  the driver, which SQLAlchemy would miss only at the first connection
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from hsoftmax.service.errors import StartError


def parse_url(url: str) -> URL:
    """Return the URL with its driver. Raises StartError, which never repeats the URL."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise _wrong("one that cannot be read") from None
    if not parsed.database:
        raise _wrong("one without a database")
    return parsed.set(drivername="postgresql+psycopg")


def _wrong(got: str) -> StartError:
    return StartError(f"state: expected postgresql://user@host/database, got {got}")
