"""The methods about the service as a whole."""

from importlib.metadata import version

from hsoftmax.service.errors import NotAlive
from hsoftmax.service.inference.tensors.metadata import EXTENSIONS, SERVER_NAME

from .grpc_call import GrpcCall
from .messages import Message, message_type

_ServerLiveResponse = message_type("ServerLiveResponse")
_ServerReadyResponse = message_type("ServerReadyResponse")
_ServerMetadataResponse = message_type("ServerMetadataResponse")


async def server_live(call: GrpcCall, request: Message) -> Message:
    """Answer what /healthz/live says."""
    try:
        call.context.health.expect_alive(call.context.engine)
    except NotAlive:
        return _ServerLiveResponse(live=False)
    return _ServerLiveResponse(live=True)


async def server_ready(call: GrpcCall, request: Message) -> Message:
    """Answer what /healthz/ready says."""
    ready = call.context.health.is_ready(call.context.repository)
    return _ServerReadyResponse(ready=ready)


async def server_metadata(call: GrpcCall, request: Message) -> Message:
    """Answer name, version and extensions."""
    return _ServerMetadataResponse(
        name=SERVER_NAME, version=version("hsoftmax"), extensions=EXTENSIONS
    )
