"""The methods that answer requests of tensors: ModelInfer and ModelStreamInfer."""

from functools import partial

import msgspec

from hsoftmax.service.errors import Overloaded, ServiceError
from hsoftmax.service.http.request_context import RequestContext, new_request_context
from hsoftmax.service.http.request_options import RequestOptions, parse_request_options
from hsoftmax.service.inference.graph_calls import record_failure
from hsoftmax.service.inference.tensors.infer import infer
from hsoftmax.service.inference.tensors.request import InferResult
from hsoftmax.service.middleware.rate_limiting import take_request

from .grpc_call import GrpcCall, beside_loop
from .messages import Message, ModelInferRequest, ModelStreamInferResponse
from .status_codes import detail
from .tensor_messages import read_request, read_tensors, write_parameters, write_result

_MAX_INLINE_VALUES = 20_000  # values that are written in less than a millisecond
_BYTES_PER_VALUE = 40  # as an array, as Python's numbers and as a message
_MAX_TIMEOUT_S = 3600.0  # as in the header of HTTP
_RETRY_AFTER_S = 5  # the duration of a stream is unknown
_LAST = {"triton_final_response": True}


async def model_infer(call: GrpcCall) -> None:
    """Answer one request."""
    data = await call.receive_bytes()
    message = await call.parse(data, ModelInferRequest)
    await call.send(await _answer(call, message, len(data), call.request_context))


class StreamInfer:
    """Answers the requests of streams, one after the other; the settings limit their number."""

    def __init__(self) -> None:
        self._streams = 0

    async def __call__(self, call: GrpcCall) -> None:
        """Answer the requests of one stream. An error is an answer, and the stream goes on."""
        limit = call.context.settings.max_streams
        if self._streams >= limit:
            raise Overloaded(f"streams: expected at most {limit}, got one more", _RETRY_AFTER_S)
        self._streams += 1
        try:
            async for data in call.stream():
                await call.send(await _stream_answer(call, data))
        finally:
            self._streams -= 1


async def _stream_answer(call: GrpcCall, data: bytes) -> Message:
    """Answer one request of a stream; log and count it."""
    request_context = new_request_context(call.request_context.headers)
    request_context.key = call.request_context.key
    request_id = ""
    try:
        message = await call.parse(data, ModelInferRequest)
        request_id = message.id
        take_request(request_context, call.context.rate_limits)
        response = await _answer(call, message, len(data), request_context)
    except ServiceError as error:
        return _error(error, request_id, request_context)
    except Exception as error:
        return _error(call.log_unexpected(error, request_context), request_id, request_context)
    else:
        write_parameters(response.parameters, _LAST)
        request_context.status = 200
        return ModelStreamInferResponse(infer_response=response)
    finally:
        call.record(request_context)


def _error(error: ServiceError, request_id: str, request_context: RequestContext) -> Message:
    request_context.status, request_context.code = error.status, error.code
    return ModelStreamInferResponse(error_message=detail(error), infer_response={"id": request_id})


async def _answer(
    call: GrpcCall, message: Message, num_bytes: int, request_context: RequestContext
) -> Message:
    context = call.context
    version, key = message.model_version or None, request_context.sticky_key
    bundle = context.repository.find(message.model_name, version, key)
    request_context.set_model(bundle)
    read = partial(read_tensors, message, context.settings)
    try:
        request = read_request(message, partial(beside_loop, num_bytes, read))
    except ServiceError:
        record_failure(context.statistics, request_context)
        raise
    request = msgspec.structs.replace(request, version=bundle.version)
    result = await infer(request, context, request_context, route=call.path, options=_options(call))
    write = partial(write_result, result, message)
    if (values := _num_values(result)) <= _MAX_INLINE_VALUES:
        return write()
    return await context.engine.run_in_idle(write, num_bytes=_BYTES_PER_VALUE * values)


def _options(call: GrpcCall) -> RequestOptions:
    """Return timeout and priority: the metadata's, within the client's deadline."""
    options = parse_request_options(call.request_context.headers)
    left = call.seconds_left
    if left is None:
        return options
    timeouts = (left, _MAX_TIMEOUT_S, options.timeout)
    return RequestOptions(min(t for t in timeouts if t is not None), options.priority)


def _num_values(result: InferResult) -> int:
    return sum(len(output.data) if isinstance(output.data, list) else output.data.size
               for output in result.outputs)  # fmt: skip
