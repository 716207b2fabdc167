"""The methods that describe one model."""

from google.protobuf.json_format import ParseDict

from hsoftmax.service import control
from hsoftmax.service.errors import NotFound, NotReady
from hsoftmax.service.inference.tensors import metadata
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.statistics import model_statistics as statistics_of

from .grpc_call import GrpcCall
from .messages import Message, message_type

_ModelReadyResponse = message_type("ModelReadyResponse")
_ModelMetadataResponse = message_type("ModelMetadataResponse")
_ModelStatisticsResponse = message_type("ModelStatisticsResponse")
_ModelConfigResponse = message_type("ModelConfigResponse")


async def model_ready(call: GrpcCall, request: Message) -> Message:
    """Answer True if the model is served, and the service is alive and not draining."""
    health = call.context.health
    try:
        health.expect_alive(call.context.engine)
        health.expect_ready_model(call.context.repository, request.name)
        _find(call, request)
    except (NotFound, NotReady):
        return _ModelReadyResponse(ready=False)
    return _ModelReadyResponse(ready=True)


async def model_metadata(call: GrpcCall, request: Message) -> Message:
    """Answer versions, inputs and outputs."""
    bundle = _find(call, request)
    fields = metadata.model_metadata(bundle, call.context.repository.versions(bundle.name))
    # `properties` are a field of REST alone.
    return ParseDict(fields, _ModelMetadataResponse(), ignore_unknown_fields=True)


async def model_config(call: GrpcCall, request: Message) -> Message:
    """Answer the configuration as Triton writes it."""
    fields = {"config": metadata.model_config(_find(call, request))}
    return ParseDict(fields, _ModelConfigResponse())


async def model_statistics(call: GrpcCall, request: Message) -> Message:
    """Answer the counts of a version, of all versions of a model, or of all models."""
    allows = call.request_context.allows_model
    bundles = [one for one in call.context.repository if allows(one.name)]
    if request.name:
        found = _find(call, request)
        same = [one for one in bundles if one.name == found.name]
        bundles = [found] if request.version else same
    listed = await control.statistics(call.context)
    stats = statistics_of([(one.name, one.version) for one in bundles], listed)
    return ParseDict({"model_stats": stats}, _ModelStatisticsResponse())


def _find(call: GrpcCall, request: Message) -> LoadedBundle:
    bundle = call.context.repository.find(request.name, request.version or None)
    call.request_context.set_model(bundle)
    return bundle
