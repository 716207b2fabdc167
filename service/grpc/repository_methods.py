"""The methods of the repository: its index, and load and unload for operators."""

from collections.abc import Iterable

from google.protobuf.json_format import ParseDict

from hsoftmax.service import control
from hsoftmax.service.errors import BundleRefused, InvalidQuery
from hsoftmax.service.inference.tensors.repository_index import repository_index
from hsoftmax.service.middleware.authentication import authenticate_admin

from .grpc_call import GrpcCall
from .messages import Message, message_type

_RepositoryIndexResponse = message_type("RepositoryIndexResponse")
_LoadResponse = message_type("RepositoryModelLoadResponse")
_UnloadResponse = message_type("RepositoryModelUnloadResponse")

_UNLOAD_PARAMETERS = frozenset({"unload_dependents"})


async def index(call: GrpcCall, request: Message) -> Message:
    """Answer every version, and why one is not served."""
    models = repository_index(call.context.repository, ready_only=request.ready)
    allows = call.request_context.allows_model
    models = [one for one in models if allows(one["name"])]
    return ParseDict({"models": models}, _RepositoryIndexResponse())


async def load(call: GrpcCall, request: Message) -> Message:
    """Load or reload a model."""
    name = _model_of_admin(call, request)
    for parameter in request.parameters:
        raise InvalidQuery(
            f"parameters: expected none, as bundles are loaded as they are, got {parameter[:60]!r}"
        )
    if refused := await control.reload(call.context, name):
        raise BundleRefused("load: " + "; ".join(refused.values()))
    call.request_context.set_model(call.context.repository.find(name))
    return _LoadResponse(model_name=name, isLoaded=True)


async def unload(call: GrpcCall, request: Message) -> Message:
    """Unload a model until it is loaded again."""
    name = _model_of_admin(call, request)
    for parameter in _others(request.parameters):
        raise InvalidQuery(f"parameters: expected unload_dependents, got {parameter[:60]!r}")
    await control.unload(call.context, name)
    return _UnloadResponse(model_name=name, isUnloaded=True)


def _others(parameters: Iterable[str]) -> list[str]:
    return [name for name in parameters if name not in _UNLOAD_PARAMETERS]


def _model_of_admin(call: GrpcCall, request: Message) -> str:
    """Return the name of the model. Raises Unauthorized or Forbidden without the admin key.

    Triton's clients send the name as the second field, and KServe's as the first.
    """
    name: str = request.model_name or request.repository_name
    authenticate_admin(call.request_context, call.context.keys, name)
    return name
