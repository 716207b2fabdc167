"""POST /v1/models/{name}/<operation> as raw ASGI, each in the OpenAPI document all the same."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from time import perf_counter
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
from hsoftmax.service.http.content_types import Format, formats
from hsoftmax.service.http.disconnect import cancel_on_disconnect
from hsoftmax.service.http.request_context import RequestContext, current
from hsoftmax.service.http.request_options import RequestOptions, parse_request_options
from hsoftmax.service.http.responses import send_answer, send_error
from hsoftmax.service.inference.body_bounds import check_body_shape
from hsoftmax.service.inference.chunked_response import stream
from hsoftmax.service.inference.encoders import encode, matrix_encoder
from hsoftmax.service.inference.operations import OPERATIONS, Operation, Plan
from hsoftmax.service.inference.prepared_request import PreparedRequest
from hsoftmax.service.inference.query_params import build_query

_INLINE_VALUES = 20_000  # numbers that are written in less than a millisecond
_WRITTEN_BYTES = 20  # a value's float32, float64 and JSON
_NOTHING = GraphResult([])
_WHOLE_VALUES = 2**18  # numbers that are computed, written and sent in one go: a megabyte


def operation_endpoints(context: AppContext) -> dict[str, "Endpoint"]:
    """The endpoint of each operation, by its name and by its aliases."""
    endpoints: dict[str, Endpoint] = {}
    for operation in OPERATIONS:
        endpoint = Endpoint(operation, context)
        endpoints |= dict.fromkeys((operation.name, *operation.aliases), endpoint)
    return endpoints


def operation_path(name: str) -> str:
    """The route of the operation, or of its alias."""
    return f"/v1/models/{{name}}/{name}"


class Endpoint:
    """One operation as an ASGI app: body -> query -> plan -> outputs -> response."""

    def __init__(self, operation: Operation, context: AppContext) -> None:
        self._operation = operation
        self._core = context
        self._settings = context.settings
        self.path = operation_path(operation.name)  # the one label of metrics and logs
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(operation.query)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_context = current(scope)
        try:
            prepared = await self._read(scope, receive, request_context)
            if _is_long(prepared.plan):
                return await self._stream(prepared, request_context, receive, send)
            await send_answer(
                send, prepared.response_type, await self._answer(prepared, request_context, receive)
            )
        except ServiceError as error:
            await send_error(send, error, scope)
        except ClientDisconnect:
            return

    async def _read(
        self, scope: Scope, receive: Receive, request_context: RequestContext
    ) -> PreparedRequest:
        """What is asked of a bundle, or of another version of it. Raises ServiceError."""
        on_terms, form, response_type = _manner(
            request_context.asked
        )  # wrong ones are told before the body
        body = await read_body(request_context.asked, receive, self._settings)
        bundle = self._core.repository.find(scope["path_params"]["name"])
        request_context.serve(bundle)
        if form is Format.JSON:  # of others, only reading them tells the task
            self._core.engine.admit(self._operation.guess_task(body))
            check_body_shape(body, bundle, self._settings)
        query = self._query(form, body, scope["query_string"])
        if query.version is not None:
            bundle = self._core.repository.find(bundle.name, str(query.version))
            request_context.serve(bundle)
        plan = self._operation.plan(query, bundle, self._settings)
        request_context.rows = plan.rows
        return PreparedRequest(
            on_terms, response_type, plan, {"model": bundle.name, "version": bundle.version}
        )

    async def _answer(
        self, prepared: PreparedRequest, request_context: RequestContext, receive: Receive
    ) -> bytes:
        outputs = [await self._run(run, prepared.options, receive) for run in prepared.plan.calls]
        for run, got in zip(prepared.plan.calls, outputs, strict=True):
            if run.feeds:
                self._note(run, got, request_context)
        if prepared.plan.values <= _INLINE_VALUES:
            return _encode(prepared, outputs)
        num_bytes = _WRITTEN_BYTES * prepared.plan.values
        steps = _steps(prepared, outputs)
        return b"".join(await self._core.engine.run_steps(steps, num_bytes=num_bytes))

    def _query(self, form: Format, body: bytes, query_string: bytes) -> Any:  # noqa: ANN401
        if form is Format.JSON:
            return decode(self._decoder, body)
        kind = self._operation.query
        if "inputs" not in kind.__struct_fields__:
            raise UnsupportedMediaType(f"content-type: expected {Format.JSON}, got {form}")
        matrix, targets = (read_npy(body), None) if form is Format.NPY else read_arrow(body)
        return build_query(kind, matrix, targets, query_string)

    async def _slices(
        self, prepared: PreparedRequest, request_context: RequestContext, receive: Receive
    ) -> AsyncIterator[Array]:
        """The rows' log-probabilities, as many at a time as there may be in memory."""
        plan = prepared.plan
        assert plan.feeds is not None
        states, width = plan.feeds["hidden"], plan.values // plan.rows
        rows = max(1, self._settings.slice_bytes // (4 * width))
        for start in range(0, plan.rows, rows):
            some = states[start : start + rows]
            part = msgspec.structs.replace(
                plan,
                feeds={"hidden": some},
                rows=len(some),
                cost=int(plan.cost * (len(some) / plan.rows)),
                values=len(some) * width,
            )
            outputs = await self._run(part, prepared.options, receive)
            self._note(part, outputs, request_context)
            yield outputs.arrays[0]

    async def _run(self, plan: Plan, asked: RequestOptions, receive: Receive) -> GraphResult:
        if not plan.feeds:
            return _NOTHING
        call, engine = _call(plan, asked), self._core.engine
        if engine.is_small(call):  # to watch for a client that leaves would cost more
            return engine.run_inline(call)
        return await cancel_on_disconnect(receive, engine.submit(call))

    def _note(self, run: Plan, outputs: GraphResult, request_context: RequestContext) -> None:
        request_context.queued, request_context.computed = outputs.queued, outputs.computed
        request_context.answered = perf_counter()
        metrics, names = self._core.metrics, run.session.output_names
        metrics.computed(
            self.path, request_context.model, run.rows, outputs.queued, outputs.computed
        )
        if "blocks" in names:
            blocks = outputs.arrays[names.index("blocks")]
            metrics.blocks_opened(request_context.model, int(blocks.sum()))

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
        run_in_idle, timeout = self._core.engine.run_in_idle, self._settings.body_timeout
        await stream(
            encoder, prepared.response_type, slices, send, run_in_idle=run_in_idle, timeout=timeout
        )


def _manner(asked: Mapping[bytes, bytes]) -> tuple[RequestOptions, Format, Format]:
    """How the body is to be read and answered, as the headers say. Raises ServiceError."""
    on_terms, (form, response_type) = parse_request_options(asked), formats(asked)
    if response_type is Format.ARROW:
        expect_arrow()
    return on_terms, form, response_type


def _is_long(plan: Plan) -> bool:
    """Whether the answer is made in slices, and never whole in memory."""
    return plan.matrix is not None and plan.values > _WHOLE_VALUES


def _call(plan: Plan, asked: RequestOptions) -> GraphCall:
    return GraphCall(
        session=plan.session,
        feeds=plan.feeds or {},
        rows=plan.rows,
        cost=plan.cost,
        values=plan.values,
        priority=asked.priority,
        timeout=asked.timeout,
        isolated=plan.isolated,
    )


def _steps(prepared: PreparedRequest, outputs: Sequence[GraphResult]) -> Iterator[bytes]:
    """The whole answer, in pieces that are written in about a millisecond where that can be."""
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
    for run, got in zip(prepared.plan.calls, outputs, strict=True):
        fields.update(run.finish(got.arrays))
    return encode(prepared.response_type, prepared.bundle_fields, fields)
