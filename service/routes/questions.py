"""POST /v1/models/{name}/<question> as raw ASGI, each in the OpenAPI document all the same."""

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from service.answers import send_json
from service.body import read_json
from service.core import Core
from service.engine import Outputs
from service.exchange import Exchange, current
from service.questions import QUESTIONS, Plan, Question
from service.repository import Served
from service.wire import decode, encode

_INLINE_VALUES = 20_000  # numbers that are written in less than a millisecond


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
        exchange = current(scope)
        try:
            body = await read_json(scope, receive, self._core.settings.max_body_bytes)
        except ClientDisconnect:
            return
        await send_json(send, await self._answer(scope["path_params"]["name"], body, exchange))

    async def _answer(self, name: str, body: bytes, exchange: Exchange) -> bytes:
        core = self._core
        served = core.repository.find(name)  # an unknown name comes before a bad body
        exchange.serve(served)
        query = decode(self._decoder, body)
        if query.version is not None:
            served = core.repository.find(name, str(query.version))
            exchange.serve(served)
        plan = self._question.plan(query, served, core.settings)
        outputs = await self._run(plan, served, exchange)
        answer = {"model": name, "version": served.version}
        if plan.values <= _INLINE_VALUES:
            return _written(answer, plan, outputs)
        return await core.engine.call(lambda: _written(answer, plan, outputs))

    async def _run(self, plan: Plan, served: Served, exchange: Exchange) -> Outputs:
        exchange.rows = plan.rows
        if plan.feeds is None:
            return Outputs([])
        outputs = await self._core.engine.run(plan.session, plan.feeds, work=plan.work)
        exchange.queued, exchange.computed = outputs.queued, outputs.computed
        self._core.metrics.computed(
            self.path, served.name, plan.rows, outputs.queued, outputs.computed
        )
        if "blocks" in plan.session.output_names:
            blocks = outputs.arrays[plan.session.output_names.index("blocks")]
            self._core.metrics.blocks_opened(served.name, int(blocks.sum()))
        return outputs


def _written(answer: Mapping[str, object], plan: Plan, outputs: Outputs) -> bytes:
    return encode({**answer, **plan.finish(outputs.arrays)})
