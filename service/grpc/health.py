"""The standard health service: `grpc.health.v1.Health`, which needs no API key.

Its status is the readiness that /healthz/ready answers, for the service as a whole (the empty name)
and for `inference.GRPCInferenceService`.
"""

import asyncio
from contextlib import suppress

from grpc_health.v1 import health_pb2

from hsoftmax.service.context import AppContext
from hsoftmax.service.errors import NotFound

from .grpc_call import GrpcCall
from .messages import HEALTH_SERVICE, SERVICE, Message
from .method import Method, unary

_WATCH_INTERVAL_S = 1.0
_Request = health_pb2.HealthCheckRequest
_Response = health_pb2.HealthCheckResponse


def health_methods() -> list[Method]:
    """Return the methods of the health service."""
    check, watch = f"/{HEALTH_SERVICE}/Check", f"/{HEALTH_SERVICE}/Watch"
    return [
        unary(check, _Request, _check, is_public=True, is_probe=True),
        Method(watch, _watch, is_public=True, is_probe=True),
    ]


async def _check(call: GrpcCall, request: Message) -> Message:
    if (status := _status(call.context, request.service)) is None:
        raise NotFound(f"service: expected {SERVICE} or an empty name, got another one")
    return _Response(status=status)


async def _watch(call: GrpcCall) -> None:
    """Send the status, and send it again whenever it changes, until the server stops."""
    request = await call.receive(_Request)
    sent = None
    while True:
        status = _status(call.context, request.service)
        if status is None:
            status = _Response.SERVICE_UNKNOWN
        if status != sent:
            await call.send(_Response(status=status))
            sent = status
        if call.stopping.is_set():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_WATCH_INTERVAL_S):
                await call.stopping.wait()


def _status(context: AppContext, service: str) -> int | None:
    if service not in ("", SERVICE):
        return None
    ready = context.health.is_ready(context.repository)
    return int(_Response.SERVING if ready else _Response.NOT_SERVING)
