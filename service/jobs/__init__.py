"""Durable scoring jobs over files: see `Jobs`, which lives as long as the app."""

from .manager import JobManager

__all__ = ["JobManager"]
