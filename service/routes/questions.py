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
from service.sessions import Feeds, Session
from service.sheets import sheet, written
from service.streams import stream
from service.terms import Terms, terms
from service.wire import decode

_INLINE_VALUES = 20_000  # numbers that are written in less than a millisecond
_WRITTEN_BYTES = 20  # a value's float32, float64 and JSON
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
        self.path = question_path(question)
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(question.query)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._answer(scope, receive, send, current(scope))
        except ServiceError as error:
            await send_error(send, error, scope)
        except ClientDisconnect:
            return

    async def _answer(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        core = self._core
        asked, (form, wanted) = terms(exchange.asked), formats(exchange.asked)
        if wanted is Format.ARROW:
            expect_arrow()
        body = await read_body(scope, receive, core.settings)
        name = scope["path_params"]["name"]
        served = core.repository.find(name)  # an unknown name comes before a bad body
        exchange.serve(served)
        if form is Format.JSON:
            core.engine.expect_room(self._question.task(body))
        query = self._query(form, body, scope["query_string"])
        if query.version is not None:
            served = core.repository.find(name, str(query.version))
            exchange.serve(served)
        plan = self._question.plan(query, served, core.settings)
        exchange.rows = plan.rows
        answer = {"model": name, "version": served.version}
        if plan.matrix is not None and plan.values > _WHOLE_VALUES:
            page = sheet(wanted, answer, plan.matrix, plan.rows)
            slices = self._slices(plan, plan.matrix.width, asked, exchange, receive)
            return await stream(
                page,
                wanted,
                slices,
                send,
                elsewhere=core.engine.call,
                patience=core.settings.body_timeout,
            )
        outputs = [await self._outputs(run, asked, exchange, receive) for run in plan.runs]
        if plan.values <= _INLINE_VALUES:
            whole = _written(wanted, answer, plan, outputs)
        else:
            steps = _steps(wanted, answer, plan, outputs)
            num_bytes = _WRITTEN_BYTES * plan.values
            whole = b"".join(await core.engine.call_each(steps, num_bytes=num_bytes))
        await send_answer(send, wanted, whole)

    async def _outputs(
        self, plan: Plan, asked: Terms, exchange: Exchange, receive: Receive
    ) -> Outputs:
        if plan.feeds is None:
            return Outputs([])
        outputs = await self._run(_call(plan, plan.feeds, asked), receive)
        self._note(outputs, plan.session, plan.rows, exchange)
        return outputs

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
        rows = max(1, self._core.settings.slice_bytes // (4 * width))
        for start in range(0, plan.rows, rows):
            some = states[start : start + rows]
            part = msgspec.structs.replace(plan, rows=len(some))
            call = _call(part, {"hidden": some}, asked)
            share = len(some) / plan.rows
            call = msgspec.structs.replace(
                call, work=int(plan.work * share), values=len(some) * width
            )
            outputs = await self._run(call, receive)
            self._note(outputs, plan.session, len(some), exchange)
            yield outputs.arrays[0]

    async def _run(self, call: Call, receive: Receive) -> Outputs:
        engine = self._core.engine
        if (outputs := engine.run_now(call)) is not None:
            return outputs  # to watch whether the client leaves would cost more
        return await unless_left(receive, engine.submit(call))

    def _note(self, outputs: Outputs, session: Session, rows: int, exchange: Exchange) -> None:
        exchange.queued, exchange.computed = outputs.queued, outputs.computed
        exchange.answered = perf_counter()
        self._core.metrics.computed(
            self.path, exchange.model, rows, outputs.queued, outputs.computed
        )
        if "blocks" in session.output_names:
            blocks = outputs.arrays[session.output_names.index("blocks")]
            self._core.metrics.blocks_opened(exchange.model, int(blocks.sum()))


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
        fields |= run.finish(got.arrays)
    return written(form, answer, fields)
