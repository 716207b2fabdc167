"""The methods of `inference.GRPCInferenceService`, by what `inference.proto` names."""

from hsoftmax.service.access.api_key import KeyScope

from .infer import StreamInfer, model_infer
from .messages import message_type, method_names
from .method import Answer, Method, unary
from .model_methods import model_config, model_metadata, model_ready, model_statistics
from .repository_methods import index, load, unload
from .server_methods import server_live, server_metadata, server_ready

_PROBES = {"ServerLive": server_live, "ServerReady": server_ready}
_UNARY = {
    "ServerMetadata": server_metadata,
    "ModelReady": model_ready,
    "ModelMetadata": model_metadata,
    "ModelConfig": model_config,
    "ModelStatistics": model_statistics,
    "RepositoryIndex": index,
}
_ADMIN = {"RepositoryModelLoad": load, "RepositoryModelUnload": unload}


def inference_methods() -> list[Method]:
    """Return the methods of the service."""
    paths = method_names()
    return [
        *(_unary(name, paths[name], run, is_probe=True) for name, run in _PROBES.items()),
        *(_unary(name, paths[name], run) for name, run in _UNARY.items()),
        *(_unary(name, paths[name], run, scope="admin") for name, run in _ADMIN.items()),
        Method(paths["ModelInfer"], model_infer),
        Method(paths["ModelStreamInfer"], StreamInfer().__call__, records_requests=True),
    ]


def _unary(
    name: str, path: str, answer: Answer, *, is_probe: bool = False, scope: KeyScope = "read"
) -> Method:
    request_type = message_type(f"{name}Request")
    return unary(path, request_type, answer, is_public=is_probe, scope=scope, is_probe=is_probe)
