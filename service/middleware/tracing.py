"""OpenTelemetry traces: a span for each request, and below it one of waiting and one of computing.

They are made when the request is done, of times that were measured anyway, so that nothing is on
its way. The SDK is an extra, imported only where OpenTelemetry's own environment asks for traces.
"""

import os
from collections.abc import Mapping
from time import perf_counter, time_ns
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from hsoftmax.service.http.request_context import QUIET, RequestContext, current
from hsoftmax.service.logging import Log

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment configures somewhere to send traces."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    kind = environment.get("OTEL_TRACES_EXPORTER", "")
    return kind == "otlp" or (kind == "" and any(environment.get(one) for one in _ENDPOINTS))


def open_tracer(log: Log) -> "Tracer | None":
    """Traces to where the environment says; None if it says nothing, or the extra is not there."""
    if not wanted():
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        log.warning("traces_off", reason="the extra `otel` is not installed")
        return None
    return Tracer(OTLPSpanExporter())


class Tracer:
    """A tracer of its own, and its exporter's thread; closed with the service."""

    def __init__(self, exporter: "SpanExporter") -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        name = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": "hsoftmax"}
        self._provider = TracerProvider(resource=Resource.create(name))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("hsoftmax")
        self._propagator = TraceContextTextMapPropagator()

    def close(self) -> None:
        """Send what waits."""
        self._provider.shutdown()

    def record(self, scope: Scope, started: float) -> None:
        """The spans of a request that is done; `started` is of the same clock as `perf_counter`."""
        from opentelemetry.trace import SpanKind, Status, StatusCode

        request_context = current(scope)
        zero = time_ns() - int(perf_counter() * 1e9)  # from the one clock to the other
        route = getattr(scope.get("route") or scope.get("endpoint"), "path", "unmatched")
        span = self._tracer.start_span(
            f"{scope['method']} {route}",
            context=self._propagator.extract(_carrier(scope)),
            kind=SpanKind.SERVER,
            attributes=_attributes(request_context, scope["method"], route),
            start_time=zero + int(started * 1e9),
        )
        if request_context.status >= 500:
            span.set_status(Status(StatusCode.ERROR, request_context.code))
        if request_context.answered:
            self._record_parts(span, request_context, zero)
        span.end()

    def _record_parts(self, span: "Span", request_context: RequestContext, zero: int) -> None:
        from opentelemetry.trace import set_span_in_context

        with_timeout = set_span_in_context(span)
        ran = request_context.answered - request_context.computed
        for name, start, end in (
            ("queue", ran - request_context.queued, ran),
            ("compute", ran, request_context.answered),
        ):
            part = self._tracer.start_span(name, with_timeout, start_time=zero + int(start * 1e9))
            part.end(zero + int(end * 1e9))


class TracingMiddleware:
    """Middleware inside of the rim, whose exchange it reads."""

    def __init__(self, app: ASGIApp, traces: Tracer) -> None:
        self._app = app
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in QUIET:
            return await self._app(scope, receive, send)
        started = perf_counter()
        try:
            await self._app(scope, receive, send)
        finally:
            self._traces.record(scope, started)


def _carrier(scope: Scope) -> dict[str, str]:
    told = (b"traceparent", b"tracestate")
    return {
        name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in told
    }


def _attributes(request_context: RequestContext, method: str, route: str) -> dict[str, str | int]:
    told: dict[str, str | int] = {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": request_context.status,
        "hsoftmax.request_id": request_context.request_id,
        "hsoftmax.model": request_context.model,
        "hsoftmax.digest": request_context.digest,
        "hsoftmax.rows": request_context.rows,
    }
    return told if request_context.code == "ok" else {**told, "error.type": request_context.code}
