"""POST /v1/models/{name}/score as raw ASGI: many rows as a stream, their records as another."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, get_args

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from hsoftmax.scoring import CallError, GraphRequest, ScoringError, TargetShape, Task
from hsoftmax.scoring.stream import (
    LineStreamReader,
    LineStreamWriter,
    StreamReader,
    StreamSpec,
    StreamTotals,
    StreamWriter,
    score_stream,
)
from hsoftmax.scoring.task import values_per_row
from hsoftmax.service.codecs.arrow import expect_arrow, expect_readable
from hsoftmax.service.context import AppContext
from hsoftmax.service.engine import GraphResult, Priority
from hsoftmax.service.errors import InvalidQuery, Overloaded, ServiceError, SlowBody, Unreadable
from hsoftmax.service.http.request_context import RequestContext, current
from hsoftmax.service.http.request_options import RequestOptions, parse_request_options
from hsoftmax.service.http.responses import send_error
from hsoftmax.service.inference.scoring_task import build_task, parse_task_name
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.streaming.activity import Activity
from hsoftmax.service.streaming.async_graph_runner import build_graph_runner
from hsoftmax.service.streaming.media_types import (
    StreamMediaType,
    request_type_of,
    response_type_of,
)
from hsoftmax.service.streaming.query import expect_answerable, parse_query
from hsoftmax.service.streaming.request_reader import RequestReader
from hsoftmax.service.streaming.response_sender import ResponseSender, SlowReaderError
from hsoftmax.service.streaming.spool import Spool

SCORE_PATH = "/v1/models/{name}/score"

_USUAL = RequestOptions(priority=Priority.BATCH)
_CHUNK_ROWS = 512
_CHUNK_VALUES = 2**15  # numbers in a chunk's records
_VALUES_AHEAD = 2**21  # in all chunks that are on their way
_MOST_AHEAD = 16  # chunks
_FORMS: tuple[TargetShape, ...] = get_args(TargetShape)
_RETRY_AFTER = 5  # seconds; nobody knows how long streams last


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that can be answered."""

    served: LoadedBundle
    task: Task
    form: StreamMediaType
    wanted: StreamMediaType
    options: RequestOptions


class ScoreEndpoint:
    """Rows -> records, until the body ends; as many at once as the settings say."""

    path = SCORE_PATH

    def __init__(self, context: AppContext) -> None:
        self._core = context
        self._streams = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_context = current(scope)
        try:
            asked = self._asked(scope, request_context)
            with self._one_more():
                await self._stream(asked, request_context, receive, send)
        except ServiceError as error:  # before anything of the answer
            await send_error(send, error, scope)
        except ClientDisconnect:
            request_context.code = "client_left"
        except SlowReaderError:
            request_context.code = "slow_reader"

    @contextmanager
    def _one_more(self) -> Iterator[None]:
        """Raises Overloaded."""
        if self._streams >= self._core.settings.max_streams:
            raise Overloaded("streams: as many as may be are running already", _RETRY_AFTER)
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    def _asked(self, scope: Scope, request_context: RequestContext) -> _Asked:
        """Raises ServiceError for all that can be seen to be wrong before the body is read."""
        headers = request_context.asked
        on_terms = parse_request_options(headers, _USUAL)
        form = request_type_of(headers.get(b"content-type", b""))
        wanted = response_type_of(headers.get(b"accept", b""), form)
        if form is StreamMediaType.ARROW:
            expect_readable()
        if wanted is StreamMediaType.ARROW:
            expect_arrow()
        name = scope["path_params"]["name"]
        served = self._core.repository.find(name)  # an unknown name comes before a bad query
        request_context.serve(served)
        query = parse_query(scope["query_string"])
        task = build_task(parse_task_name(query.task), query)
        if query.version is not None:
            served = self._core.repository.find(name, str(query.version))
            request_context.serve(served)
        expect_answerable(task, served)
        return _Asked(served, task, form, wanted, on_terms)

    async def _stream(
        self, asked: _Asked, request_context: RequestContext, receive: Receive, send: Send
    ) -> None:
        settings, pulse, totals = self._core.settings, Activity(), StreamTotals()
        spool = Spool(settings.stream_spool_bytes)
        patience = settings.stream_timeout
        inflow = RequestReader(request_context.asked, receive, pulse, patience)
        outflow = ResponseSender(send, spool, pulse, patience, asked.wanted.encode())
        stream = self._stream_task(asked, request_context, pulse)
        try:
            await _beside(
                _answer(inflow, stream, outflow, request_context, totals),
                inflow.read(),
                outflow.send(),
            )
        finally:
            spool.close()
            self._note(totals, request_context)

    def _stream_task(
        self, asked: _Asked, request_context: RequestContext, pulse: Activity
    ) -> StreamSpec:
        served, task = asked.served, asked.task
        intake = _intake(asked)

        def note(outputs: GraphResult, run: GraphRequest) -> None:
            self._note_run(outputs, run, served, request_context)

        return StreamSpec(
            task=task,
            bundle_info=served.bundle_info,
            reader=intake,
            writer=_outlet(asked, intake),
            run_graph=build_graph_runner(self._core.engine, served, asked.options, pulse, note),
            run_in_idle=self._core.engine.run_in_idle,
            rows=lambda form: _rows(task, form, served),
            max_pending=_ahead(task, served),
            max_targets=self._core.settings.max_targets,
        )

    def _note_run(
        self,
        outputs: GraphResult,
        run: GraphRequest,
        served: LoadedBundle,
        request_context: RequestContext,
    ) -> None:
        if not request_context.status:
            request_context.queued, request_context.computed = outputs.queued, outputs.computed
        rows, metrics = len(run.hidden), self._core.metrics
        metrics.computed(self.path, served.name, rows, outputs.queued, outputs.computed)
        names = served.session(run.graph).output_names
        if "blocks" in names:
            opened = outputs.arrays[names.index("blocks")]
            metrics.blocks_opened(served.name, int(opened.sum()))

    def _note(self, totals: StreamTotals, request_context: RequestContext) -> None:
        request_context.rows = totals.rows
        scored, failed = totals.rows - totals.failed, totals.failed
        self._core.metrics.streamed(request_context.model, scored, failed)
        self._core.log.info(
            "stream",
            request_id=request_context.request_id,
            model=request_context.model,
            scored=scored,
            failed=failed,
            summed_up=totals.has_summary,
        )


async def _answer(
    inflow: RequestReader,
    stream: StreamSpec,
    outflow: ResponseSender,
    request_context: RequestContext,
    totals: StreamTotals,
) -> None:
    """All records and the summary; or, once some are out, why there are no more and no end."""
    try:
        await score_stream(inflow.pieces(), stream, outflow.put, totals)
    except (ServiceError, ScoringError) as raised:
        error = _error(raised)
        if not outflow.started:
            raise error from None
        request_context.code = error.code
        said = {"error": str(error), "code": error.code, "request_id": request_context.request_id}
        await outflow.put(stream.writer.failure(said))
        await outflow.flush()
        if not isinstance(error, SlowBody):
            await inflow.drain()
    else:
        await outflow.finish()


def _error(error: ServiceError | ScoringError) -> ServiceError:
    """What a request is told of a stream that cannot go on."""
    if isinstance(error, ServiceError):
        return error
    return (InvalidQuery if isinstance(error, CallError) else Unreadable)(str(error))


async def _beside(main: Any, *others: Any) -> None:  # noqa: ANN401  coroutines
    """Run the first coroutine to its end, or until one of the others fails."""
    tasks = [asyncio.create_task(one) for one in (main, *others)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        done = next(task for task in tasks if task.done())
        done.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _rows(task: Task, form: TargetShape, served: LoadedBundle) -> int:
    """Of a chunk, so that its records are written in a millisecond or so."""
    values = values_per_row(task, form, served.bundle_info)
    return max(1, min(_CHUNK_ROWS, _CHUNK_VALUES // values))


def _ahead(task: Task, served: LoadedBundle) -> int:
    """How many chunks, so that their answers are bounded; one row's may be as large as it is."""
    most = max(values_per_row(task, form, served.bundle_info) for form in _FORMS)
    return max(1, min(_MOST_AHEAD, _VALUES_AHEAD // max(_CHUNK_VALUES, most)))


def _intake(asked: _Asked) -> StreamReader:
    if asked.form is StreamMediaType.LINES:
        return LineStreamReader()
    from hsoftmax.scoring.stream.arrow import ArrowStreamReader  # pyarrow is large, and an extra

    return ArrowStreamReader(asked.served.bundle_info)


def _outlet(asked: _Asked, intake: StreamReader) -> StreamWriter:
    if asked.wanted is StreamMediaType.LINES:
        return LineStreamWriter(asked.task, asked.served.bundle_info)
    from hsoftmax.scoring.stream.arrow import ArrowStreamWriter

    told: Mapping[str, str] = {"model": asked.served.name, "version": asked.served.version}
    return ArrowStreamWriter(asked.task, asked.served.bundle_info, intake, told)
