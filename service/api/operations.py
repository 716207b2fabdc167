"""ASGI endpoints of POST /v1/models/{name}/<operation>.

`Dispatcher` calls them directly; `openapi` adds them to the OpenAPI document.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from hsoftmax.models.arrays import Array
from hsoftmax.service.codecs.arrow import expect_arrow, read_arrow
from hsoftmax.service.codecs.json import decode
from hsoftmax.service.codecs.npy import read_npy
from hsoftmax.service.context import AppContext
from hsoftmax.service.engine import GraphCall, GraphResult
from hsoftmax.service.errors import ServiceError, UnsupportedMediaType
from hsoftmax.service.http.body import read_body
from hsoftmax.service.http.content_types import Format, negotiate_types
from hsoftmax.service.http.request_context import RequestContext, request_context_of
from hsoftmax.service.http.request_options import RequestOptions, parse_request_options
from hsoftmax.service.http.responses import send_error, send_response
from hsoftmax.service.inference.body_bounds import check_body_shape
from hsoftmax.service.inference.chunked_response import stream
from hsoftmax.service.inference.encoders import encode, matrix_encoder
from hsoftmax.service.inference.graph_calls import (
    record_call,
    record_failure,
    record_success,
    run_while_connected,
)
from hsoftmax.service.inference.hidden_rows import with_hidden
from hsoftmax.service.inference.operations import OPERATIONS, Operation, Plan
from hsoftmax.service.inference.overflow import expect_no_overflow
from hsoftmax.service.inference.prepared_request import PreparedRequest
from hsoftmax.service.inference.query_params import build_query, expect_no_fields
from hsoftmax.service.inference.scoring_calls import build_plan_call
from hsoftmax.service.inference.texts import is_hidden

_MAX_INLINE_VALUES = 20_000  # values that are encoded in less than a millisecond
_BYTES_PER_VALUE = 20  # of one value as float32, float64 and JSON
_EMPTY_RESULT = GraphResult([])
_MAX_UNSLICED_VALUES = 2**18  # larger responses are sent in slices; a megabyte of float32


def operation_endpoints(context: AppContext) -> dict[str, "Endpoint"]:
    """Build the endpoint of each operation, by the name and the aliases of the operation."""
    endpoints: dict[str, Endpoint] = {}
    for operation in OPERATIONS:
        endpoint = Endpoint(operation, context)
        endpoints |= dict.fromkeys((operation.name, *operation.aliases), endpoint)
    return endpoints


def operation_path(name: str) -> str:
    """Return the route of an operation or of an alias."""
    return f"/v1/models/{{name}}/{name}"


class Endpoint:
    """ASGI app of one operation: body -> query -> plan -> outputs -> response."""

    def __init__(self, operation: Operation, context: AppContext) -> None:
        self._operation = operation
        self._context = context
        self._settings = context.settings
        self.path = operation_path(operation.name)  # label of the endpoint in metrics and logs
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(operation.query)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_context = request_context_of(scope)
        try:
            prepared = await self._read(scope, receive, request_context)
            if _is_sliced(prepared.plan):
                await self._stream(prepared, request_context, receive, send)
                return record_success(self._context.statistics, request_context)
            body = await self._respond(prepared, request_context, receive)
            record_success(self._context.statistics, request_context)
            await send_response(send, prepared.response_type, body)
        except ServiceError as error:
            record_failure(self._context.statistics, request_context)
            await send_error(send, error, scope)
        except ClientDisconnect:
            return

    async def _read(
        self, scope: Scope, receive: Receive, request_context: RequestContext
    ) -> PreparedRequest:
        """Read and validate a request, its headers before its body. Raises ServiceError."""
        options, request_type, response_type = _parse_headers(request_context.headers)
        body = await read_body(
            request_context.headers, receive, self._settings, self._context.body_budget
        )
        name, key = scope["path_params"]["name"], request_context.sticky_key
        bundle = self._context.repository.find(name, key=key)
        request_context.set_model(bundle)
        request_context.expect_rows()
        if request_type is Format.JSON:  # other formats show the task only once decoded
            self._context.engine.admit(self._operation.guess_task(body))
            check_body_shape(body, bundle, self._settings)
        query = self._build_query(request_type, body, scope["query_string"])
        if query.version is not None:
            bundle = self._context.repository.find(bundle.name, str(query.version))
            request_context.set_model(bundle)
        if not is_hidden(query):
            query = await with_hidden(
                query,
                bundle,
                self._settings,
                self._context.texts,
                options,
                partial(self._run_call, receive=receive),
                request_context,
                isolated=self._operation.isolated,
            )
        if self._operation.prepare is not None:
            await asyncio.to_thread(self._operation.prepare, bundle)
        plan = self._operation.plan(query, bundle, self._settings)
        request_context.set_rows(plan.rows)
        return PreparedRequest(
            options, response_type, plan, {"model": bundle.name, "version": bundle.version}
        )

    async def _respond(
        self, prepared: PreparedRequest, request_context: RequestContext, receive: Receive
    ) -> bytes:
        outputs = [await self._run(call, prepared.options, receive) for call in prepared.plan.calls]
        # Checked here, as the engine may have run the calls in one batch with other requests'.
        for call, result in zip(prepared.plan.calls, outputs, strict=True):
            if call.feeds:
                expect_no_overflow(call, result.arrays)
        for call, result in zip(prepared.plan.calls, outputs, strict=True):
            if call.feeds:
                self._record_call(call, result, request_context)
        if prepared.plan.values <= _MAX_INLINE_VALUES:
            return _encode(prepared, outputs)
        num_bytes = _BYTES_PER_VALUE * prepared.plan.values
        steps = _steps(prepared, outputs)
        return b"".join(await self._context.engine.run_steps(steps, num_bytes=num_bytes))

    def _build_query(self, request_type: Format, body: bytes, query_string: bytes) -> Any:  # noqa: ANN401
        query_type = self._operation.query
        if request_type is Format.JSON:
            if query_string:
                expect_no_fields(query_type, query_string)
            return decode(self._decoder, body)
        if "inputs" not in query_type.__struct_fields__:
            raise UnsupportedMediaType(f"content-type: expected {Format.JSON}, got {request_type}")
        if request_type is Format.NPY:
            return build_query(query_type, read_npy(body), None, query_string)
        inputs, targets = read_arrow(body, self._settings.max_body_bytes)
        return build_query(query_type, inputs, targets, query_string)

    async def _slices(
        self, prepared: PreparedRequest, request_context: RequestContext, receive: Receive
    ) -> AsyncIterator[Array]:
        """Yield the log-probabilities in slices of rows that fit the memory limit."""
        plan = prepared.plan
        assert plan.feeds is not None
        states, width = plan.feeds["hidden"], plan.values // plan.rows
        rows = max(1, self._settings.slice_bytes // (4 * width))
        for start in range(0, plan.rows, rows):
            feed = states[start : start + rows]
            part = msgspec.structs.replace(
                plan,
                feeds={"hidden": feed},
                rows=len(feed),
                cost=int(plan.cost * (len(feed) / plan.rows)),
                values=len(feed) * width,
            )
            outputs = await self._run(part, prepared.options, receive)
            expect_no_overflow(part, outputs.arrays, start)
            self._record_call(part, outputs, request_context)
            yield outputs.arrays[0]

    async def _run(self, plan: Plan, options: RequestOptions, receive: Receive) -> GraphResult:
        if not plan.feeds:
            return _EMPTY_RESULT
        return await self._run_call(build_plan_call(plan, options), receive)

    async def _run_call(self, call: GraphCall, receive: Receive) -> GraphResult:
        return await run_while_connected(call, self._context.engine, receive)

    def _record_call(
        self, plan: Plan, outputs: GraphResult, request_context: RequestContext
    ) -> None:
        context = self._context
        record_call(plan, outputs, self.path, context.metrics, context.statistics, request_context)

    async def _stream(
        self,
        prepared: PreparedRequest,
        request_context: RequestContext,
        receive: Receive,
        send: Send,
    ) -> None:
        assert prepared.plan.matrix is not None
        encoder = matrix_encoder(
            prepared.response_type, prepared.bundle_fields, prepared.plan.matrix, prepared.plan.rows
        )
        slices = self._slices(prepared, request_context, receive)
        run_in_idle, timeout = self._context.engine.run_in_idle, self._settings.body_timeout
        await stream(
            encoder, prepared.response_type, slices, send, run_in_idle=run_in_idle, timeout=timeout
        )


def _parse_headers(headers: Mapping[bytes, bytes]) -> tuple[RequestOptions, Format, Format]:
    """Parse options, request type and response type from the headers. Raises ServiceError."""
    options = parse_request_options(headers)
    request_type, response_type = negotiate_types(headers)
    if response_type is Format.ARROW:
        expect_arrow()
    return options, request_type, response_type


def _is_sliced(plan: Plan) -> bool:
    """Return True if the response is computed and sent in slices."""
    return plan.matrix is not None and plan.values > _MAX_UNSLICED_VALUES


def _steps(prepared: PreparedRequest, outputs: Sequence[GraphResult]) -> Iterator[bytes]:
    """Yield the body of the response in steps, each of about a millisecond where possible."""
    plan = prepared.plan
    if plan.matrix is None:
        yield _encode(prepared, outputs)
        return
    encoder = matrix_encoder(prepared.response_type, prepared.bundle_fields, plan.matrix, plan.rows)
    yield encoder.begin()
    yield from encoder.pieces(outputs[0].arrays[0])
    yield encoder.end()


def _encode(prepared: PreparedRequest, outputs: Sequence[GraphResult]) -> bytes:
    fields: dict[str, object] = {}
    for call, result in zip(prepared.plan.calls, outputs, strict=True):
        fields.update(call.finish(result.arrays))
    return encode(prepared.response_type, prepared.bundle_fields, fields)
