"""POST /v1/models/{name}/<question> as raw ASGI, each in the OpenAPI document all the same."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from models.arrays import Array
from service.answers import send_answer, send_error
from service.arrow import expect_arrow, read_arrow
from service.body import read_body
from service.core import Core
from service.departure import unless_left
from service.engine import Call, Outputs
from service.errors import ServiceError, UnsupportedMediaType
from service.exchange import Exchange, current
from service.formats import Format, formats
from service.npy import read_npy
from service.parameters import query_of
from service.questions import QUESTIONS, Plan, Question
from service.sessions import Feeds
from service.sheets import Sheet, sheet, written
from service.streams import stream
from service.terms import Terms, terms
from service.wire import decode

_INLINE_VALUES = 20_000  # numbers that are written in less than a millisecond
_WRITTEN_BYTES = 20  # a value's float32, float64 and JSON
_NOTHING = Outputs([])
_WHOLE_VALUES = 2**18  # numbers that are computed, written and sent in one go: a megabyte


def question_routes(core: Core) -> list[Route]:
    """One route for each question."""
    return [
        Route(
            question_path(question), Endpoint(question, core), methods=["POST"], name=question.name
        )
        for question in QUESTIONS
    ]


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
            asked, (form, wanted) = terms(exchange.asked), formats(exchange.asked)
            if wanted is Format.ARROW:
                expect_arrow()
            body = await read_body(exchange.asked, receive, self._settings)
            plan, answer = self._plan(form, body, scope, exchange)
            if plan.matrix is not None and plan.values > _WHOLE_VALUES:
                page = sheet(wanted, answer, plan.matrix, plan.rows)
                slices = self._slices(plan, plan.matrix.width, asked, exchange, receive)
                return await self._stream(page, wanted, slices, send)
            outputs = []
            for run in plan.runs:  # no step of its own, as each costs a tiny query a hundredth
                call = _call(run, run.feeds or {}, asked)
                got = self._run_now(call) or await self._run_later(call, receive)
                self._note(got, call, exchange)
                outputs.append(got)
            if plan.values <= _INLINE_VALUES:
                whole = _written(wanted, answer, plan, outputs)
            else:
                whole = await self._write(_steps(wanted, answer, plan, outputs), plan.values)
            await send_answer(send, wanted, whole)
        except ServiceError as error:
            await send_error(send, error, scope)
        except ClientDisconnect:
            return

    def _plan(
        self, form: Format, body: bytes, scope: Scope, exchange: Exchange
    ) -> tuple[Plan, dict[str, str]]:
        """What is to be run, and what the answer says beside the numbers."""
        core, name = self._core, scope["path_params"]["name"]
        served = core.repository.find(name)  # an unknown name comes before a bad body
        exchange.serve(served)
        if form is Format.JSON:
            core.engine.expect_room(self._question.task(body))
        query = self._query(form, body, scope["query_string"])
        if query.version is not None:
            served = core.repository.find(name, str(query.version))
            exchange.serve(served)
        plan = self._question.plan(query, served, self._settings)
        exchange.rows = plan.rows
        return plan, {"model": name, "version": served.version}

    def _query(self, form: Format, body: bytes, query_string: bytes) -> Any:  # noqa: ANN401
        if form is Format.JSON:
            return decode(self._decoder, body)
        kind = self._question.query
        if "inputs" not in kind.__struct_fields__:
            raise UnsupportedMediaType(f"content-type: expected {Format.JSON}, got {form}")
        matrix, targets = (read_npy(body), None) if form is Format.NPY else read_arrow(body)
        return query_of(kind, matrix, targets, query_string)

    async def _slices(
        self, plan: Plan, width: int, asked: Terms, exchange: Exchange, receive: Receive
    ) -> AsyncIterator[Array]:
        """The rows' log-probabilities, as many at a time as there may be in memory."""
        assert plan.feeds is not None
        states = plan.feeds["hidden"]
        rows = max(1, self._settings.slice_bytes // (4 * width))
        for start in range(0, plan.rows, rows):
            some = states[start : start + rows]
            part = msgspec.structs.replace(plan, rows=len(some))
            call = _call(part, {"hidden": some}, asked)
            share = len(some) / plan.rows
            call = msgspec.structs.replace(
                call, work=int(plan.work * share), values=len(some) * width
            )
            outputs = self._run_now(call) or await self._run_later(call, receive)
            self._note(outputs, call, exchange)
            yield outputs.arrays[0]

    def _run_now(self, call: Call) -> Outputs | None:
        if not call.feeds:
            return _NOTHING
        return self._core.engine.run_now(call)  # to watch for a client that leaves would cost more

    async def _run_later(self, call: Call, receive: Receive) -> Outputs:
        return await unless_left(receive, self._core.engine.submit(call))

    def _note(self, outputs: Outputs, call: Call, exchange: Exchange) -> None:
        if not outputs.arrays:
            return
        exchange.queued, exchange.computed = outputs.queued, outputs.computed
        exchange.answered = perf_counter()
        metrics, names = self._core.metrics, call.session.output_names
        metrics.computed(self.path, exchange.model, call.rows, outputs.queued, outputs.computed)
        if "blocks" in names:
            blocks = outputs.arrays[names.index("blocks")]
            metrics.blocks_opened(exchange.model, int(blocks.sum()))

    async def _write(self, steps: Iterator[bytes], values: int) -> bytes:
        pieces = await self._core.engine.call_each(steps, num_bytes=_WRITTEN_BYTES * values)
        return b"".join(pieces)

    async def _stream(
        self, page: Sheet, form: Format, slices: AsyncIterator[Array], send: Send
    ) -> None:
        elsewhere, patience = self._core.engine.call, self._settings.body_timeout
        await stream(page, form, slices, send, elsewhere=elsewhere, patience=patience)


def _call(plan: Plan, feeds: Feeds, asked: Terms) -> Call:
    return Call(
        session=plan.session,
        feeds=feeds,
        rows=plan.rows,
        work=plan.work,
        values=plan.values,
        priority=asked.priority,
        timeout=asked.timeout,
    )


def _steps(
    form: Format, answer: Mapping[str, str], plan: Plan, outputs: Sequence[Outputs]
) -> Iterator[bytes]:
    """The whole answer, in pieces that are written in about a millisecond where that can be."""
    if plan.matrix is None:
        yield _written(form, answer, plan, outputs)
        return
    page = sheet(form, answer, plan.matrix, plan.rows)
    yield page.begin()
    yield from page.pieces(outputs[0].arrays[0])
    yield page.end()


def _written(
    form: Format, answer: Mapping[str, str], plan: Plan, outputs: Sequence[Outputs]
) -> bytes:
    fields: dict[str, object] = {}
    for run, got in zip(plan.runs, outputs, strict=True):
        fields.update(run.finish(got.arrays))
    return written(form, answer, fields)
