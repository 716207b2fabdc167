"""ASGI endpoint of POST /v2/models/{name}[/versions/{version}]/infer."""

from collections.abc import Iterator
from functools import partial

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from hsoftmax.service.context import AppContext
from hsoftmax.service.errors import ServiceError
from hsoftmax.service.http.body import read_body
from hsoftmax.service.http.request_context import request_context_of
from hsoftmax.service.http.request_options import parse_request_options
from hsoftmax.service.http.responses import send_error
from hsoftmax.service.inference.graph_calls import record_failure, run_while_connected
from hsoftmax.service.inference.tensors.infer import infer
from hsoftmax.service.inference.tensors.request import InferRequest, InferResult

from .request_body import HEADER_LENGTH, BinaryOutputs, read_infer_body
from .response_body import json_pieces, raw_pieces, response_headers

INFER_PATH = "/v2/models/{name}/infer"
INFER_VERSION_PATH = "/v2/models/{name}/versions/{version}/infer"
_MAX_INLINE_VALUES = 20_000  # values that are encoded in less than a millisecond
_BYTES_PER_VALUE = 24  # of one value as JSON


class InferEndpoint:
    """ASGI app of inference: body -> tensors -> operations -> tensors -> body.

    A `Content-Type` says nothing: Triton's clients send none, or one of raw bytes for JSON too.
    """

    path = INFER_PATH  # label of the endpoint in metrics and logs

    def __init__(self, context: AppContext) -> None:
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_context = request_context_of(scope)
        try:
            options = parse_request_options(request_context.headers)
            request, binary = await self._read(scope, receive)
            run_call = partial(run_while_connected, engine=self._context.engine, receive=receive)
            result = await infer(
                request,
                self._context,
                request_context,
                route=self.path,
                run_call=run_call,
                options=options,
            )
            await self._send(result, binary, send)
        except ServiceError as error:
            await send_error(send, error, scope)
        except ClientDisconnect:
            return

    async def _read(self, scope: Scope, receive: Receive) -> tuple[InferRequest, BinaryOutputs]:
        """Read and parse a request. Raises ServiceError."""
        context, request_context = self._context, request_context_of(scope)
        headers, settings = request_context.headers, context.settings
        body = await read_body(headers, receive, settings, context.body_budget)
        params = scope["path_params"]
        version = params.get("version")
        bundle = context.repository.find(params["name"], version, request_context.sticky_key)
        request_context.set_model(bundle)
        try:
            return read_infer_body(body, headers.get(HEADER_LENGTH), bundle, settings)
        except ServiceError:
            record_failure(context.statistics, request_context)
            raise

    async def _send(self, result: InferResult, binary: BinaryOutputs, send: Send) -> None:
        values = sum(len(one.data) if isinstance(one.data, list) else one.data.size
                     for one in result.outputs)  # fmt: skip
        content, raw = json_pieces(result, binary), raw_pieces(result, binary)
        if values <= _MAX_INLINE_VALUES:
            head, tail = b"".join(content), b"".join(raw)
        else:
            head, tail = await self._join(content, values), await self._join(raw, values)
        has_raw = any(binary.has(one.name) for one in result.outputs)
        headers = response_headers(len(head), len(tail), has_raw=has_raw)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": head + tail})

    async def _join(self, pieces: Iterator[bytes], values: int) -> bytes:
        """Join the pieces of many values, which are made in turn, beside the event loop."""
        num_bytes = _BYTES_PER_VALUE * values
        return b"".join(await self._context.engine.run_steps(pieces, num_bytes=num_bytes))
