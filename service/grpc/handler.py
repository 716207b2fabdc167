"""Runs the method of each call: id, key, limits, status, log and metrics, as the layers of HTTP do.

gRPC calls it for every path. Every method is registered as one of streams and of bytes, so that the
service itself reads the messages, within its limits.
"""

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Any

import grpc

from hsoftmax.service.context import AppContext
from hsoftmax.service.errors import MethodNotAllowed, Overloaded, ServiceError
from hsoftmax.service.http.request_context import RequestContext, new_request_context
from hsoftmax.service.middleware.authentication import authenticate
from hsoftmax.service.middleware.rate_limiting import take_request
from hsoftmax.service.middleware.request_log import RequestRecorder

from .grpc_call import GrpcCall
from .method import Method
from .status_codes import detail, error_metadata, status_code

_RETRY_AFTER_S = 1
_OK = 200  # log and metrics have the status that HTTP gives the same outcome

Rpc = Any  # grpc.aio.ServicerContext


class MethodHandler(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Finds the method of a call by its path, and runs it.

    Attributes:
        stopping: set when the server stops
    """

    def __init__(self, methods: Iterable[Method], context: AppContext) -> None:
        self.stopping = asyncio.Event()
        self._context = context
        self._recorder = RequestRecorder(context.metrics, context.log)
        self._max_calls = 4 * context.settings.max_queue_requests
        self._calls = 0
        self._handlers = {method.path: self._handler(method) for method in methods}
        self._unknown = self._handler(Method("unmatched", _unknown))

    def service(self, details: "grpc.HandlerCallDetails") -> "grpc.RpcMethodHandler":
        """Return the handler of a path; gRPC calls it at the start of a call."""
        return self._handlers.get(details.method, self._unknown)

    def _handler(self, method: Method) -> "grpc.RpcMethodHandler":
        return grpc.stream_stream_rpc_method_handler(partial(self._serve, method))

    async def _serve(self, method: Method, messages: object, rpc: Rpc) -> None:
        request_context = new_request_context(_headers(rpc))
        recorder, stopping = self._recorder, self.stopping
        call = GrpcCall(self._context, method.path, rpc, request_context, recorder, stopping)
        self._calls += 1
        try:
            error = await self._run(method, call)
            if error is None:
                request_context.status = _OK
                rpc.set_trailing_metadata(_metadata(request_context))
            else:
                request_context.status, request_context.code = error.status, error.code
                trailers = (*_metadata(request_context), *error_metadata(error))
                await rpc.abort(status_code(error), detail(error), trailers)
        finally:
            self._calls -= 1
            if not method.records_requests or request_context.status != _OK:
                call.record(request_context, is_probe=method.is_probe)

    async def _run(self, method: Method, call: GrpcCall) -> ServiceError | None:
        """Run a method; return its error, if there is one."""
        try:
            self._admit(method, call.request_context)
            await method.run(call)
        except ServiceError as error:
            return error
        except Exception as error:
            return call.log_unexpected(error, call.request_context)
        return None

    def _admit(self, method: Method, request_context: RequestContext) -> None:
        """Check key, number of calls and rate limits.

        Raises:
            Unauthorized: the call has no valid key.
            Forbidden: the key lacks the scope of the method.
            Overloaded: there are too many calls.
            RateLimited: a rate limit is reached. Each request of a stream counts, not the stream.
        """
        if method.scope == "admin":  # its message, which names the model, is not read yet
            request_context.admin_model = ""
        if not method.is_public:
            authenticate(request_context, self._context.keys, method.scope)
        if not method.is_probe and self._calls > self._max_calls:
            limit = f"expected at most {self._max_calls} at the same time, got more"
            raise Overloaded(f"calls: {limit}", _RETRY_AFTER_S)
        unlimited = method.is_public or method.is_probe or method.scope == "admin"
        if not (unlimited or method.records_requests):
            take_request(request_context, self._context.rate_limits)


async def _unknown(call: GrpcCall) -> None:
    raise MethodNotAllowed("method: expected one of this service, which reflection lists")


def _headers(rpc: Rpc) -> dict[bytes, bytes]:
    """Return the metadata of a call as HTTP has its headers."""
    return {
        key.encode(): value
        if isinstance(value, bytes)
        else value.encode("utf-8", "surrogateescape")
        for key, value in rpc.invocation_metadata() or ()
    }


def _metadata(request_context: RequestContext) -> tuple[tuple[str, str], ...]:
    """Return the trailing metadata of every call: what HTTP has as headers of its responses."""
    headers = request_context.response_headers()
    return tuple((name.decode(), value.decode()) for name, value in headers)
