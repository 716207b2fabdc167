"""Bundles over HTTP: sessions over a repository, the /v1 routes, health and metrics."""

from .app import create_app
from .errors import StartError
from .server import serve
from .settings import Settings

__all__ = ["Settings", "StartError", "create_app", "serve"]
