"""Clients of a running service: `Client`, and `AsyncClient` for asyncio.

`hsoftmax demo` and `hsoftmax score --url` use it too. It needs the extra `client`.
"""

from .async_client import AsyncClient, AsyncJobs, AsyncRemoteModel
from .errors import ClientError
from .job_calls import Job
from .sync_client import Client, Jobs, RemoteModel

__all__ = [
    "AsyncClient",
    "AsyncJobs",
    "AsyncRemoteModel",
    "Client",
    "ClientError",
    "Job",
    "Jobs",
    "RemoteModel",
]
