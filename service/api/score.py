"""ASGI endpoint of POST /v1/models/{name}/score: scores a stream of rows to a stream of records."""

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
from hsoftmax.service.errors import (
    InvalidQuery,
    Overloaded,
    ServiceError,
    SlowBody,
    StorageFull,
    Unreadable,
)
from hsoftmax.service.http.request_context import RequestContext, request_context_of
from hsoftmax.service.http.request_options import RequestOptions, parse_request_options
from hsoftmax.service.http.responses import send_error
from hsoftmax.service.inference.scoring_task import build_task, parse_task_name
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.streaming.activity import Activity
from hsoftmax.service.streaming.async_graph_runner import build_graph_runner
from hsoftmax.service.streaming.chunk_receiver import ChunkReceiver
from hsoftmax.service.streaming.media_types import (
    StreamMediaType,
    request_type_of,
    response_type_of,
)
from hsoftmax.service.streaming.query import expect_answerable, parse_query
from hsoftmax.service.streaming.response_sender import ResponseSender, SlowReaderError
from hsoftmax.service.streaming.spool import Spool

SCORE_PATH = "/v1/models/{name}/score"

_DEFAULT_OPTIONS = RequestOptions(priority=Priority.BATCH)
_MAX_CHUNK_ROWS = 512
_MAX_CHUNK_VALUES = 2**15  # numbers in the records of a chunk
_MAX_PENDING_VALUES = 2**21  # numbers in the records of all pending chunks
_MAX_PENDING_CHUNKS = 16
_TARGET_SHAPES: tuple[TargetShape, ...] = get_args(TargetShape)
_RETRY_AFTER_S = 5  # the duration of a stream is unknown


@dataclass(frozen=True, slots=True)
class _ScoreRequest:
    """A validated request, before its body is read."""

    bundle: LoadedBundle
    task: Task
    request_type: StreamMediaType
    response_type: StreamMediaType
    options: RequestOptions


class ScoreEndpoint:
    """ASGI app that scores streams; the settings limit the number of concurrent streams."""

    path = SCORE_PATH

    def __init__(self, context: AppContext) -> None:
        self._context = context
        self._streams = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_context = request_context_of(scope)
        try:
            request = self._parse(scope, request_context)
            with self._count_stream():
                await self._stream(request, request_context, receive, send)
        except ServiceError as error:  # raised before the response starts
            await send_error(send, error, scope)
        except ClientDisconnect:
            request_context.code = "client_left"
        except SlowReaderError:
            request_context.code = "slow_reader"

    @contextmanager
    def _count_stream(self) -> Iterator[None]:
        """Count a running stream. Raises Overloaded if there are too many."""
        if self._streams >= self._context.settings.max_streams:
            raise Overloaded("streams: as many as may be are running already", _RETRY_AFTER_S)
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    def _parse(self, scope: Scope, request_context: RequestContext) -> _ScoreRequest:
        """Parse and check all but the body. Raises ServiceError."""
        headers = request_context.headers
        options = parse_request_options(headers, _DEFAULT_OPTIONS)
        request_type = request_type_of(headers.get(b"content-type", b""))
        response_type = response_type_of(headers.get(b"accept", b""), request_type)
        if request_type is StreamMediaType.ARROW:
            expect_readable()
        if response_type is StreamMediaType.ARROW:
            expect_arrow()
        name = scope["path_params"]["name"]
        # An unknown name is reported before a bad query.
        bundle = self._context.repository.find(name, key=request_context.sticky_key)
        request_context.set_model(bundle)
        request_context.expect_rows()
        query = parse_query(scope["query_string"])
        task = build_task(parse_task_name(query.task), query)
        if query.version is not None:
            bundle = self._context.repository.find(name, str(query.version))
            request_context.set_model(bundle)
        expect_answerable(task, bundle)
        return _ScoreRequest(bundle, task, request_type, response_type, options)

    async def _stream(
        self, request: _ScoreRequest, request_context: RequestContext, receive: Receive, send: Send
    ) -> None:
        settings, activity, totals = self._context.settings, Activity(), StreamTotals()
        spool = Spool(settings.stream_spool_bytes)
        timeout = settings.stream_timeout
        receiver = ChunkReceiver(request_context.headers, receive, activity, timeout)
        sender = ResponseSender(send, spool, activity, timeout, request.response_type.encode())
        stream = self._stream_spec(request, request_context, activity)
        try:
            await _run_beside(
                _score(receiver, stream, sender, request_context, totals),
                receiver.read(),
                sender.send(),
            )
        finally:
            spool.close()
            self._record_stream(totals, request_context)

    def _stream_spec(
        self, request: _ScoreRequest, request_context: RequestContext, activity: Activity
    ) -> StreamSpec:
        bundle, task = request.bundle, request.task
        stream_reader = _build_stream_reader(request)

        def record_call(outputs: GraphResult, run: GraphRequest) -> None:
            self._record_call(outputs, run, bundle, request_context)

        return StreamSpec(
            task=task,
            bundle_info=bundle.bundle_info,
            reader=stream_reader,
            writer=_build_stream_writer(request, stream_reader),
            run_graph=build_graph_runner(
                self._context.engine,
                bundle,
                request.options,
                activity,
                record_call,
                request_context.quota,
            ),
            run_in_idle=self._context.engine.run_in_idle,
            run_parse=(
                self._context.texts.runner_for(bundle)
                if bundle.featurizer is not None
                else self._context.encoder_rows.runner_for(bundle)
                if bundle.encoder is not None
                else self._context.engine.run_in_idle
            ),
            rows=lambda target_shape: _chunk_rows(task, target_shape, bundle),
            max_pending=_max_pending(task, bundle),
            max_targets=self._context.settings.max_targets,
        )

    def _record_call(
        self,
        outputs: GraphResult,
        run: GraphRequest,
        bundle: LoadedBundle,
        request_context: RequestContext,
    ) -> None:
        if not request_context.status:
            request_context.queued, request_context.computed = outputs.queued, outputs.computed
        rows, metrics = len(run.hidden), self._context.metrics
        metrics.computed(self.path, bundle.name, rows, outputs.queued, outputs.computed)
        names = bundle.session(run.graph).output_names
        if "blocks" in names:
            opened = outputs.arrays[names.index("blocks")]
            metrics.blocks_opened(bundle.name, int(opened.sum()))

    def _record_stream(self, totals: StreamTotals, request_context: RequestContext) -> None:
        request_context.rows = totals.rows
        scored, failed = totals.rows - totals.failed, totals.failed
        self._context.metrics.streamed(request_context.model, scored, failed)
        self._context.log.info(
            "stream",
            request_id=request_context.request_id,
            model=request_context.model,
            scored=scored,
            failed=failed,
            summed_up=totals.has_summary,
        )


async def _score(
    receiver: ChunkReceiver,
    stream: StreamSpec,
    sender: ResponseSender,
    request_context: RequestContext,
    totals: StreamTotals,
) -> None:
    """Score all rows and send the records and the summary.

    After an error in the middle, the last record is the error, and the response has no proper end.
    """
    try:
        await score_stream(receiver.pieces(), stream, sender.put, totals)
    except (ServiceError, ScoringError) as raised:
        error = _to_service_error(raised)
        if not sender.started:
            raise error from None
        request_context.code = error.code
        fields = {"error": str(error), "code": error.code, "request_id": request_context.request_id}
        sender.put_last(stream.writer.failure(fields))
        if isinstance(error, StorageFull):  # the client may read only after it has sent all
            await asyncio.gather(sender.flush(), receiver.drain())
            return
        await sender.flush()
        if not isinstance(error, SlowBody):
            await receiver.drain()
    else:
        await sender.finish()


def _to_service_error(error: ServiceError | ScoringError) -> ServiceError:
    """Convert the error that ended a stream to the error for the client."""
    if isinstance(error, ServiceError):
        return error
    return (InvalidQuery if isinstance(error, CallError) else Unreadable)(str(error))


async def _run_beside(main: Any, *others: Any) -> None:  # noqa: ANN401  coroutines
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


def _chunk_rows(task: Task, target_shape: TargetShape, bundle: LoadedBundle) -> int:
    """Return the rows of a chunk, so that encoding its records takes about a millisecond."""
    values = values_per_row(task, target_shape, bundle.bundle_info)
    return max(1, min(_MAX_CHUNK_ROWS, _MAX_CHUNK_VALUES // values))


def _max_pending(task: Task, bundle: LoadedBundle) -> int:
    """Return the number of pending chunks, which bounds the memory of their records.

    A single row may exceed the bound.
    """
    row_values = max(values_per_row(task, shape, bundle.bundle_info) for shape in _TARGET_SHAPES)
    chunk_values = max(_MAX_CHUNK_VALUES, row_values)
    return max(1, min(_MAX_PENDING_CHUNKS, _MAX_PENDING_VALUES // chunk_values))


def _build_stream_reader(request: _ScoreRequest) -> StreamReader:
    if request.request_type is StreamMediaType.LINES:
        bundle = request.bundle
        return LineStreamReader(text_first=bundle.takes_text, named=bundle.encoder is not None)
    from hsoftmax.scoring.stream.arrow_rows import (
        ArrowStreamReader,  # pyarrow is large, and an extra
    )

    return ArrowStreamReader(request.bundle.bundle_info)


def _build_stream_writer(request: _ScoreRequest, stream_reader: StreamReader) -> StreamWriter:
    if request.response_type is StreamMediaType.LINES:
        return LineStreamWriter(request.task, request.bundle.bundle_info)
    from hsoftmax.scoring.stream.arrow_records import ArrowStreamWriter

    names: Mapping[str, str] = {"model": request.bundle.name, "version": request.bundle.version}
    return ArrowStreamWriter(request.task, request.bundle.bundle_info, stream_reader, names)
