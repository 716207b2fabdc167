"""Spans of calls: one for each request, also of a stream, with queue and compute below."""

import grpc
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from hsoftmax.service.grpc.messages import SERVICE, ModelInferRequest, ModelStreamInferResponse
from hsoftmax.service.middleware.tracing import Tracer

from .conftest import expect_status, raw_request, serving_grpc

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
METADATA = [("traceparent", f"00-{TRACE}-{PARENT}-01")]


def test_each_request_is_a_span_in_the_trace_of_its_client(repository, hidden):
    exporter = InMemorySpanExporter()
    tracer = Tracer(exporter)
    with serving_grpc(repository, tracer=tracer) as service:
        service.call("ServerLive")
        request = raw_request("words", hidden=hidden)
        service.call("ModelInfer", request, metadata=METADATA)
        with expect_status(grpc.StatusCode.NOT_FOUND):
            service.call("ModelInfer", ModelInferRequest(model_name="nonesuch"))
        stream = service.stream(f"/{SERVICE}/ModelStreamInfer", ModelStreamInferResponse)
        assert len(list(stream(iter([request, request]), metadata=METADATA))) == 2
    tracer.close()
    spans = exporter.get_finished_spans()
    calls = [span for span in spans if span.name.startswith(SERVICE)]
    below = [span for span in spans if span not in calls]
    assert [(span.name, span.attributes["rpc.grpc.status_code"]) for span in calls] == [
        (f"{SERVICE}/ModelInfer", 0),
        (f"{SERVICE}/ModelInfer", 5),
        (f"{SERVICE}/ModelStreamInfer", 0),
        (f"{SERVICE}/ModelStreamInfer", 0),
    ]
    answered = [calls[0], *calls[2:]]
    for span in answered:
        assert f"{span.context.trace_id:032x}" == TRACE
        assert f"{span.parent.span_id:016x}" == PARENT
        assert span.attributes["hsoftmax.rows"] == len(hidden)
        own = [one for one in below if one.parent.span_id == span.context.span_id]
        assert [one.name for one in own] == ["queue", "compute"]
        assert span.start_time <= own[0].start_time <= own[1].end_time <= span.end_time
    assert len(below) == 2 * len(answered)
    assert calls[1].attributes["error.type"] == "unknown_bundle"
    assert calls[1].parent is None
