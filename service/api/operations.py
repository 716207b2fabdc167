"""POST /v1/models/{name}/<question> as raw ASGI, each in the OpenAPI document all the same."""

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
from hsoftmax.service.inference.encoders import sheet, written
from hsoftmax.service.inference.operations import OPERATIONS, Operation, Plan
from hsoftmax.service.inference.prepared_request import PreparedRequest
from hsoftmax.service.inference.query_params import query_of

_INLINE_VALUES = 20_000  # numbers that are written in less than a millisecond
_WRITTEN_BYTES = 20  # a value's float32, float64 and JSON
_NOTHING = GraphResult([])
_WHOLE_VALUES = 2**18  # numbers that are computed, written and sent in one go: a megabyte


def operation_endpoints(context: AppContext) -> dict[str, "Endpoint"]:
    """One for each question, by its name."""
    return {question.name: Endpoint(question, context) for question in OPERATIONS}


def operation_path(question: Operation) -> str:
    return f"/v1/models/{{name}}/{question.name}"


class Endpoint:
    """One question as an ASGI app: body -> query -> plan -> outputs -> answer."""

    def __init__(self, question: Operation, context: AppContext) -> None:
        self._question = question
        self._core = context
        self._settings = context.settings
        self.path = operation_path(question)
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(question.query)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_context = current(scope)
        try:
            order = await self._read(scope, receive, request_context)
            if _is_long(order.plan):
                return await self._stream(order, request_context, receive, send)
            await send_answer(
                send, order.wanted, await self._answer(order, request_context, receive)
            )
        except ServiceError as error:
            await send_error(send, error, scope)
        except ClientDisconnect:
            return

    async def _read(
        self, scope: Scope, receive: Receive, request_context: RequestContext
    ) -> PreparedRequest:
        """What is asked of a bundle, or of another version of it. Raises ServiceError."""
        on_terms, form, wanted = _manner(
            request_context.asked
        )  # wrong ones are told before the body
        body = await read_body(request_context.asked, receive, self._settings)
        served = self._core.repository.find(scope["path_params"]["name"])
        request_context.serve(served)
        if form is Format.JSON:  # of others, only reading them tells the task
            self._core.engine.admit(self._question.task(body))
            check_body_shape(body, served, self._settings)
        query = self._query(form, body, scope["query_string"])
        if query.version is not None:
            served = self._core.repository.find(served.name, str(query.version))
            request_context.serve(served)
        plan = self._question.plan(query, served, self._settings)
        request_context.rows = plan.rows
        return PreparedRequest(
            on_terms, wanted, plan, {"model": served.name, "version": served.version}
        )

    async def _answer(
        self, order: PreparedRequest, request_context: RequestContext, receive: Receive
    ) -> bytes:
        outputs = [await self._run(run, order.options, receive) for run in order.plan.runs]
        for run, got in zip(order.plan.runs, outputs, strict=True):
            if run.feeds:
                self._note(run, got, request_context)
        if order.plan.values <= _INLINE_VALUES:
            return _written(order, outputs)
        num_bytes = _WRITTEN_BYTES * order.plan.values
        steps = _steps(order, outputs)
        return b"".join(await self._core.engine.run_steps(steps, num_bytes=num_bytes))

    def _query(self, form: Format, body: bytes, query_string: bytes) -> Any:  # noqa: ANN401
        if form is Format.JSON:
            return decode(self._decoder, body)
        kind = self._question.query
        if "inputs" not in kind.__struct_fields__:
            raise UnsupportedMediaType(f"content-type: expected {Format.JSON}, got {form}")
        matrix, targets = (read_npy(body), None) if form is Format.NPY else read_arrow(body)
        return query_of(kind, matrix, targets, query_string)

    async def _slices(
        self, order: PreparedRequest, request_context: RequestContext, receive: Receive
    ) -> AsyncIterator[Array]:
        """The rows' log-probabilities, as many at a time as there may be in memory."""
        plan = order.plan
        assert plan.feeds is not None
        states, width = plan.feeds["hidden"], plan.values // plan.rows
        rows = max(1, self._settings.slice_bytes // (4 * width))
        for start in range(0, plan.rows, rows):
            some = states[start : start + rows]
            part = msgspec.structs.replace(
                plan,
                feeds={"hidden": some},
                rows=len(some),
                work=int(plan.work * (len(some) / plan.rows)),
                values=len(some) * width,
            )
            outputs = await self._run(part, order.options, receive)
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
        self, order: PreparedRequest, request_context: RequestContext, receive: Receive, send: Send
    ) -> None:
        assert order.plan.matrix is not None
        page = sheet(order.wanted, order.answer, order.plan.matrix, order.plan.rows)
        slices = self._slices(order, request_context, receive)
        elsewhere, patience = self._core.engine.call, self._settings.body_timeout
        await stream(page, order.wanted, slices, send, elsewhere=elsewhere, patience=patience)


def _manner(asked: Mapping[bytes, bytes]) -> tuple[RequestOptions, Format, Format]:
    """How the body is to be read and answered, as the headers say. Raises ServiceError."""
    on_terms, (form, wanted) = parse_request_options(asked), formats(asked)
    if wanted is Format.ARROW:
        expect_arrow()
    return on_terms, form, wanted


def _is_long(plan: Plan) -> bool:
    """Whether the answer is made in slices, and never whole in memory."""
    return plan.matrix is not None and plan.values > _WHOLE_VALUES


def _call(plan: Plan, asked: RequestOptions) -> GraphCall:
    return GraphCall(
        session=plan.session,
        feeds=plan.feeds or {},
        rows=plan.rows,
        work=plan.work,
        values=plan.values,
        priority=asked.priority,
        timeout=asked.timeout,
        apart=plan.apart,
    )


def _steps(order: PreparedRequest, outputs: Sequence[GraphResult]) -> Iterator[bytes]:
    """The whole answer, in pieces that are written in about a millisecond where that can be."""
    plan = order.plan
    if plan.matrix is None:
        yield _written(order, outputs)
        return
    page = sheet(order.wanted, order.answer, plan.matrix, plan.rows)
    yield page.begin()
    yield from page.pieces(outputs[0].arrays[0])
    yield page.end()


def _written(order: PreparedRequest, outputs: Sequence[GraphResult]) -> bytes:
    fields: dict[str, object] = {}
    for run, got in zip(order.plan.runs, outputs, strict=True):
        fields.update(run.finish(got.arrays))
    return written(order.wanted, order.answer, fields)
