"""One call: receives its messages and sends the responses, within the limits of the service."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from hsoftmax.service.context import AppContext
from hsoftmax.service.errors import InvalidQuery, NotReady, ServiceError, SlowBody
from hsoftmax.service.http.request_context import RequestContext
from hsoftmax.service.http.responses import UNEXPECTED
from hsoftmax.service.middleware.request_log import RequestRecorder

from .message_bounds import check_fields, unreadable
from .messages import Message
from .slow_messages import arrive
from .status_codes import status_number
from .tensor_messages import max_texts

_MAX_INLINE_BYTES = 2**14  # read in less than a millisecond, and into less than a megabyte
_MAX_OTHER_FIELDS = 4096  # besides the elements of tensors of texts

_METHOD = "GRPC"  # in the log, in place of the method of HTTP

T = TypeVar("T")


class GrpcCall:
    """A call from its start to its status; a method reads its messages and answers them.

    Attributes:
        context: the components of the service
        path: the path of the method, for metrics and log
        request_context: id, metadata and timings of the call
        stopping: set when the server stops; a stream ends then
    """

    def __init__(
        self,
        context: AppContext,
        path: str,
        rpc: "grpc.aio.ServicerContext",
        request_context: RequestContext,
        recorder: RequestRecorder,
        stopping: asyncio.Event,
    ) -> None:
        self.context = context
        self.path = path
        self.request_context = request_context
        self.stopping = stopping
        self._rpc = rpc
        self._recorder = recorder

    @property
    def seconds_left(self) -> float | None:
        """Return the seconds until the client's deadline, or None if it has none."""
        left: float | None = self._rpc.time_remaining()
        return left

    async def receive(self, message_type: Message) -> Message:
        """Return the one message of a call. Raises ServiceError."""
        return await self.parse(await self.receive_bytes(), message_type)

    async def receive_bytes(self) -> bytes:
        """Return the one message of a call as bytes.

        Raises:
            InvalidQuery: the client sent none.
            ServiceError: it is too slow.
        """
        data = await self._read(self.context.settings.body_timeout)
        if data is None:
            raise InvalidQuery("message: expected one, got none")
        return data

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the messages of a stream until the client has sent its last.

        Raises:
            NotReady: the server stops.
            ServiceError: a message is too slow.
        """
        timeout = self.context.settings.stream_timeout
        while (data := await self._unless_stopping(self._read(timeout))) is not None:
            yield data

    async def parse(self, data: bytes, message_type: Message) -> Message:
        """Parse a message.

        Raises:
            Unreadable: the bytes are no such message.
            TooLarge: it has too many fields.
        """
        limit = max_texts(self.context.settings) + _MAX_OTHER_FIELDS
        return await beside_loop(len(data), partial(_parse, data, message_type, limit))

    async def send(self, message: Message) -> None:
        """Send a message. Raises SlowBody if the client does not take it in time."""
        seconds = self.context.settings.body_timeout
        data = message.SerializeToString()
        try:
            async with asyncio.timeout(seconds):
                await self._rpc.write(data)
        except TimeoutError:
            raise SlowBody(f"answer: expected it to be taken within {seconds:g} s") from None

    def record(self, request_context: RequestContext, *, is_probe: bool = False) -> None:
        """Log, count and trace the call, or a request of its stream."""
        self._recorder.record(request_context, _METHOD, self.path, is_probe=is_probe)
        if self.context.tracer is not None and not is_probe:
            name = self.path.removeprefix("/")
            self.context.tracer.record(request_context, name, _attributes(name, request_context))

    def log_unexpected(self, error: Exception, request_context: RequestContext) -> ServiceError:
        """Log an error of the service itself; return the one for the client."""
        request_id = request_context.request_id
        self.context.log.error("internal_error", exc_info=error, request_id=request_id)
        return UNEXPECTED

    async def _unless_stopping(self, receiving: Coroutine[Any, Any, T]) -> T:
        """Await a message, or cancel it and raise NotReady when the server stops."""
        reading = asyncio.create_task(receiving)
        stopping = asyncio.create_task(self.stopping.wait())
        try:
            await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                raise NotReady("not ready: the service is stopping")
            return reading.result()
        finally:
            reading.cancel()
            stopping.cancel()

    async def _read(self, seconds: float) -> bytes | None:
        settings, budget = self.context.settings, self.context.body_budget
        data: bytes | object = await arrive(self._rpc.read(), settings, budget, seconds)
        return data if isinstance(data, bytes) else None  # else it is grpc.aio.EOF


def _attributes(name: str, request_context: RequestContext) -> dict[str, str | int]:
    """Return the attributes of a span that OpenTelemetry names for gRPC."""
    service, _, method = name.rpartition("/")
    return {
        "rpc.system": "grpc",
        "rpc.service": service,
        "rpc.method": method,
        "rpc.grpc.status_code": status_number(request_context.status),
    }


async def beside_loop(num_bytes: int, function: Callable[[], T]) -> T:
    """Run a function that reads so many bytes; on a thread if that takes long."""
    return function() if num_bytes <= _MAX_INLINE_BYTES else await asyncio.to_thread(function)


def _parse(data: bytes, message_type: Message, max_fields: int) -> Message:
    if len(data) > _MAX_INLINE_BYTES:
        check_fields(data, message_type.DESCRIPTOR, max_fields)
    try:
        return message_type.FromString(data)
    except DecodeError:
        raise unreadable() from None
