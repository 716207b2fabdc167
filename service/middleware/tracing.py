"""Records OpenTelemetry spans: one for each request, with children for queue and compute time.

The middleware records those of HTTP, and the gRPC server those of its calls. The spans are created
after the response, from times that are measured in any case, so tracing does not delay requests.
The SDK is an extra. It is imported only if the environment variables of OpenTelemetry configure an
exporter.
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

Attributes = Mapping[str, str | int]

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

    def record(self, request_context: RequestContext, name: str, attributes: Attributes) -> None:
        """Record the spans of a finished request.

        Args:
            name: the name of its span
            attributes: those of its protocol
        """
        from opentelemetry.trace import SpanKind, Status, StatusCode

        zero = time_ns() - int(perf_counter() * 1e9)  # converts perf_counter() to Unix time
        span = self._tracer.start_span(
            name,
            context=self._propagator.extract(_carrier(request_context.headers)),
            kind=SpanKind.SERVER,
            attributes={**attributes, **_attributes(request_context)},
            start_time=zero + int(request_context.started * 1e9),
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
        try:
            await self._app(scope, receive, send)
        finally:
            self._record(scope)

    def _record(self, scope: Scope) -> None:
        request_context, method = request_context_of(scope), scope["method"]
        route = getattr(scope.get("route") or scope.get("endpoint"), "path", "unmatched")
        attributes = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": request_context.status,
        }
        self._tracer.record(request_context, f"{method} {route}", attributes)


def _carrier(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    propagated = (b"traceparent", b"tracestate")
    return {
        name.decode(): headers[name].decode("latin-1") for name in propagated if name in headers
    }


def _attributes(request_context: RequestContext) -> Attributes:
    attributes: dict[str, str | int] = {
        "hsoftmax.request_id": request_context.request_id,
        "hsoftmax.model": request_context.model,
        "hsoftmax.digest": request_context.digest,
        "hsoftmax.rows": request_context.rows,
    }
    if request_context.code != "ok":
        attributes["error.type"] = request_context.code
    return attributes
