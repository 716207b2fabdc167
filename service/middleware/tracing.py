"""Records OpenTelemetry spans: one for each request, with children for queue and compute time.

The spans are created after the response, from times that are measured in any case, so tracing does
not delay requests. The SDK is an extra. It is imported only if the environment variables of
OpenTelemetry configure an exporter.
"""

import os
from collections.abc import Mapping
from time import perf_counter, time_ns
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from hsoftmax.service.http.request_context import PROBE_PATHS, RequestContext, request_context_of
from hsoftmax.service.logging import Log

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def is_configured(environment: Mapping[str, str] = os.environ) -> bool:
    """Return True if the environment configures an exporter for traces."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    return exporter == "otlp" or (
        exporter == "" and any(environment.get(one) for one in _ENDPOINTS)
    )


def build_tracer(log: Log) -> "Tracer | None":
    """Build the tracer that the environment configures; None without one, or without the extra."""
    if not is_configured():
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        log.warning("traces_off", reason="the extra `otel` is not installed")
        return None
    return Tracer(OTLPSpanExporter())


class Tracer:
    """Tracer of one app, with the thread of its exporter. The app closes it."""

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
        """Send the remaining spans."""
        self._provider.shutdown()

    def record(self, scope: Scope, started: float) -> None:
        """Record the spans of a finished request; `started` is a `perf_counter()` value."""
        from opentelemetry.trace import SpanKind, Status, StatusCode

        request_context = request_context_of(scope)
        zero = time_ns() - int(perf_counter() * 1e9)  # converts perf_counter() to Unix time
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
        if request_context.computed_at:
            self._record_parts(span, request_context, zero)
        span.end()

    def _record_parts(self, span: "Span", request_context: RequestContext, zero: int) -> None:
        from opentelemetry.trace import set_span_in_context

        parent = set_span_in_context(span)
        compute_start = request_context.computed_at - request_context.computed
        for name, start, end in (
            ("queue", compute_start - request_context.queued, compute_start),
            ("compute", compute_start, request_context.computed_at),
        ):
            part = self._tracer.start_span(name, parent, start_time=zero + int(start * 1e9))
            part.end(zero + int(end * 1e9))


class TracingMiddleware:
    """ASGI middleware inside RequestLogMiddleware, whose request context it reads."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBE_PATHS:
            return await self._app(scope, receive, send)
        started = perf_counter()
        try:
            await self._app(scope, receive, send)
        finally:
            self._tracer.record(scope, started)


def _carrier(scope: Scope) -> dict[str, str]:
    propagated = (b"traceparent", b"tracestate")
    return {
        name.decode(): value.decode("latin-1")
        for name, value in scope["headers"]
        if name in propagated
    }


def _attributes(request_context: RequestContext, method: str, route: str) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": request_context.status,
        "hsoftmax.request_id": request_context.request_id,
        "hsoftmax.model": request_context.model,
        "hsoftmax.digest": request_context.digest,
        "hsoftmax.rows": request_context.rows,
    }
    if request_context.code != "ok":
        attributes["error.type"] = request_context.code
    return attributes
