"""The base type of a method of a service."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from hsoftmax.service.access.api_key import KeyScope

from .grpc_call import GrpcCall
from .messages import Message

Answer = Callable[[GrpcCall, Message], Awaitable[Message]]


@dataclass(frozen=True, slots=True)
class Method:
    """One method, by its full path: /<package>.<service>/<name>.

    Attributes:
        run: reads the messages of a call and sends the responses
        is_public: needs no API key
        scope: the scope that a key needs
        is_probe: monitors call it every few seconds, so it is logged at debug and never refused
        records_requests: logs and counts each request of its streams, and not a whole stream
    """

    path: str
    run: Callable[[GrpcCall], Awaitable[None]]
    is_public: bool = False
    scope: KeyScope = "read"
    is_probe: bool = False
    records_requests: bool = False


def unary(
    path: str,
    request_type: Message,
    answer: Answer,
    *,
    is_public: bool = False,
    scope: KeyScope = "read",
    is_probe: bool = False,
) -> Method:
    """Build a method that answers one message with one."""

    async def run(call: GrpcCall) -> None:
        await call.send(await answer(call, await call.receive(request_type)))

    return Method(path, run, is_public=is_public, scope=scope, is_probe=is_probe)
