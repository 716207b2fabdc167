"""The standard reflection service, with which grpcurl and the like find methods and messages."""

from collections.abc import AsyncIterator

from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio

from .grpc_call import GrpcCall
from .messages import HEALTH_SERVICE, POOL, REFLECTION_SERVICE, SERVICE, Message
from .method import Method

_SERVICES = (SERVICE, HEALTH_SERVICE, REFLECTION_SERVICE)


def reflection_methods() -> list[Method]:
    """Return the method of the reflection service."""
    servicer = aio.ReflectionServicer(_SERVICES, pool=POOL)

    async def run(call: GrpcCall) -> None:
        responses: AsyncIterator[Message] = servicer.ServerReflectionInfo(_requests(call), None)
        async for response in responses:
            await call.send(response)

    return [Method(f"/{REFLECTION_SERVICE}/ServerReflectionInfo", run)]


async def _requests(call: GrpcCall) -> AsyncIterator[Message]:
    async for data in call.stream():
        yield await call.parse(data, reflection_pb2.ServerReflectionRequest)
