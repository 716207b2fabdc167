"""Clients of a running service: `Client`, and `AsyncClient` for asyncio.

`hsoftmax demo` and `hsoftmax score --url` use it too. It needs the extra `client`.
"""

from .async_client import AsyncClient, AsyncRemoteModel
from .errors import ClientError
from .sync_client import Client, RemoteModel

__all__ = ["AsyncClient", "AsyncRemoteModel", "Client", "ClientError", "RemoteModel"]
