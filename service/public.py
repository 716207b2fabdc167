"""The public names of `hsoftmax.service`, for other packages."""

from .app import create_app
from .errors import StartError
from .server.serve import serve
from .settings import Settings

__all__ = ["Settings", "StartError", "create_app", "serve"]
