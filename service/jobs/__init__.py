"""Durable scoring jobs over files: see `Jobs`, which lives as long as the app."""

from .jobs import Jobs

__all__ = ["Jobs"]
