"""POST /v1/models/{name}/<question> as raw ASGI, each in the OpenAPI document all the same."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from models.arrays import Array
from service.answers import send_answer, send_error
from service.arrow import expect_arrow, read_arrow
from service.body import read_body
from service.core import Core
from service.departure import unless_left
from service.engine import Call, Outputs
from service.errors import Overloaded, ServiceError, UnsupportedMediaType
from service.exchange import Exchange, current
from service.formats import Format, formats
from service.npy import read_npy
from service.order import Order
from service.parameters import query_of
from service.questions import QUESTIONS, Plan, Question
from service.served import Served
from service.sheets import sheet, written
from service.streams import stream
from service.terms import Terms, terms
from service.wire import decode

_INLINE_VALUES = 20_000  # numbers that are written in less than a millisecond
_WRITTEN_BYTES = 20  # a value's float32, float64 and JSON
_NOTHING = Outputs([])
_WHOLE_VALUES = 2**18  # numbers that are computed, written and sent in one go: a megabyte


def question_endpoints(core: Core) -> dict[str, "Endpoint"]:
    """One for each question, by its name."""
    return {question.name: Endpoint(question, core) for question in QUESTIONS}


def question_path(question: Question) -> str:
    return f"/v1/models/{{name}}/{question.name}"


class Endpoint:
    """One question as an ASGI app: body -> query -> plan -> outputs -> answer."""

    def __init__(self, question: Question, core: Core) -> None:
        self._question = question
        self._core = core
        self._settings = core.settings
        self.path = question_path(question)
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(question.query)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = current(scope)
        try:
            order = await self._begun(receive, exchange) or await self._read(
                scope, receive, exchange
            )
            if _is_long(order.plan):
                return await self._stream(order, exchange, receive, send)
            whole = order.whole or await self._answer(order, exchange, receive)
            await send_answer(send, order.wanted, whole)
        except ServiceError as error:
            await send_error(send, error, scope)
        except ClientDisconnect:
            return

    async def _begun(self, receive: Receive, exchange: Exchange) -> Order | None:
        """What was read at the door, if anything; neither it nor the body outlives the request."""
        order, exchange.order = exchange.order, None
        if order is not None:
            await receive()
        return order

    async def _read(self, scope: Scope, receive: Receive, exchange: Exchange) -> Order:
        _manner(exchange.asked)  # what is wrong with it is told before the body has come
        body = await read_body(exchange.asked, receive, self._settings)
        found = self.admit(scope["path_params"]["name"], body, exchange)
        if isinstance(found, Overloaded):
            raise found
        return self.order(found, scope["query_string"], body, exchange)

    def glance(self, asked: Mapping[bytes, bytes]) -> Callable[[bytes], str] | None:
        """What tells the task of a body that comes with these headers; None if only reading it."""
        try:
            _, form, _ = _manner(asked)
        except ServiceError:
            return None
        return self._question.task if form is Format.JSON else None

    def admit(self, name: str, body: bytes, exchange: Exchange) -> Served | Overloaded:
        """The bundle that is asked, or the refusal that a glance at the body tells is certain.

        Raises:
            NotAcceptable, UnsupportedMediaType, InvalidQuery: by the headers, it has no answer.
            UnknownBundle, NotReady: it is not served.
        """
        _, form, _ = _manner(exchange.asked)
        served = self._core.repository.find(name)
        exchange.serve(served)
        if form is not Format.JSON:
            return served
        task, engine = self._question.task(body), self._core.engine
        return Overloaded(*engine.reject(task)) if engine.is_full(task) else served

    def order(self, served: Served, query_string: bytes, body: bytes, exchange: Exchange) -> Order:
        """What is asked of this bundle, or of another version of it. Raises ServiceError."""
        on_terms, form, wanted = _manner(exchange.asked)
        query = self._query(form, body, query_string)
        if query.version is not None:
            served = self._core.repository.find(served.name, str(query.version))
            exchange.serve(served)
        plan = self._question.plan(query, served, self._settings)
        exchange.rows = plan.rows
        return Order(on_terms, wanted, plan, {"model": served.name, "version": served.version})

    def tiny_calls(self, order: Order) -> list[Call] | None:
        """What is to be run, if it is less work than handing it to a thread; else None."""
        if order.plan.values > _INLINE_VALUES or _is_long(order.plan):
            return None
        calls = [_call(run, order.terms) for run in order.plan.runs]
        is_tiny = self._core.engine.is_tiny
        return calls if all(call.feeds and is_tiny(call) for call in calls) else None

    def write(self, order: Order, outputs: Sequence[Outputs], exchange: Exchange) -> bytes:
        """The answer made of what the runs gave; the exchange takes note of them.

        Raises:
            InferenceFailed, NotAcceptable: there can be none.
        """
        self._note_all(order, outputs, exchange)
        return _written(order, outputs)

    async def _answer(self, order: Order, exchange: Exchange, receive: Receive) -> bytes:
        outputs = [await self._run(run, order.terms, receive) for run in order.plan.runs]
        if order.plan.values <= _INLINE_VALUES:
            return self.write(order, outputs, exchange)
        self._note_all(order, outputs, exchange)
        num_bytes = _WRITTEN_BYTES * order.plan.values
        steps = _steps(order, outputs)
        return b"".join(await self._core.engine.call_each(steps, num_bytes=num_bytes))

    def _query(self, form: Format, body: bytes, query_string: bytes) -> Any:  # noqa: ANN401
        if form is Format.JSON:
            return decode(self._decoder, body)
        kind = self._question.query
        if "inputs" not in kind.__struct_fields__:
            raise UnsupportedMediaType(f"content-type: expected {Format.JSON}, got {form}")
        matrix, targets = (read_npy(body), None) if form is Format.NPY else read_arrow(body)
        return query_of(kind, matrix, targets, query_string)

    async def _slices(
        self, order: Order, exchange: Exchange, receive: Receive
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
            outputs = await self._run(part, order.terms, receive)
            self._note(part, outputs, exchange)
            yield outputs.arrays[0]

    async def _run(self, plan: Plan, asked: Terms, receive: Receive) -> Outputs:
        if not plan.feeds:
            return _NOTHING
        call, engine = _call(plan, asked), self._core.engine
        if engine.is_tiny(call):  # to watch for a client that leaves would cost more
            return engine.run_now(call)
        return await unless_left(receive, engine.submit(call))

    def _note_all(self, order: Order, outputs: Sequence[Outputs], exchange: Exchange) -> None:
        for run, got in zip(order.plan.runs, outputs, strict=True):
            if run.feeds:
                self._note(run, got, exchange)

    def _note(self, run: Plan, outputs: Outputs, exchange: Exchange) -> None:
        exchange.queued, exchange.computed = outputs.queued, outputs.computed
        exchange.answered = perf_counter()
        metrics, names = self._core.metrics, run.session.output_names
        metrics.computed(self.path, exchange.model, run.rows, outputs.queued, outputs.computed)
        if "blocks" in names:
            blocks = outputs.arrays[names.index("blocks")]
            metrics.blocks_opened(exchange.model, int(blocks.sum()))

    async def _stream(self, order: Order, exchange: Exchange, receive: Receive, send: Send) -> None:
        assert order.plan.matrix is not None
        page = sheet(order.wanted, order.answer, order.plan.matrix, order.plan.rows)
        slices = self._slices(order, exchange, receive)
        elsewhere, patience = self._core.engine.call, self._settings.body_timeout
        await stream(page, order.wanted, slices, send, elsewhere=elsewhere, patience=patience)


def _manner(asked: Mapping[bytes, bytes]) -> tuple[Terms, Format, Format]:
    """How the body is to be read and answered, as the headers say. Raises ServiceError."""
    on_terms, (form, wanted) = terms(asked), formats(asked)
    if wanted is Format.ARROW:
        expect_arrow()
    return on_terms, form, wanted


def _is_long(plan: Plan) -> bool:
    """Whether the answer is made in slices, and never whole in memory."""
    return plan.matrix is not None and plan.values > _WHOLE_VALUES


def _call(plan: Plan, asked: Terms) -> Call:
    return Call(
        session=plan.session,
        feeds=plan.feeds or {},
        rows=plan.rows,
        work=plan.work,
        values=plan.values,
        priority=asked.priority,
        timeout=asked.timeout,
        apart=plan.apart,
    )


def _steps(order: Order, outputs: Sequence[Outputs]) -> Iterator[bytes]:
    """The whole answer, in pieces that are written in about a millisecond where that can be."""
    plan = order.plan
    if plan.matrix is None:
        yield _written(order, outputs)
        return
    page = sheet(order.wanted, order.answer, plan.matrix, plan.rows)
    yield page.begin()
    yield from page.pieces(outputs[0].arrays[0])
    yield page.end()


def _written(order: Order, outputs: Sequence[Outputs]) -> bytes:
    fields: dict[str, object] = {}
    for run, got in zip(order.plan.runs, outputs, strict=True):
        fields.update(run.finish(got.arrays))
    return written(order.wanted, order.answer, fields)
