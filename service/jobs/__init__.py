"""Durable scoring jobs over files. The app creates one `JobManager`, and stops it when it ends."""

from .manager import JobManager

__all__ = ["JobManager"]
