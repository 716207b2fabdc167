"""The Open Inference Protocol over HTTP, under /v2, for the clients of Triton and KServe."""

from .infer import INFER_PATH, INFER_VERSION_PATH, InferEndpoint
from .models import oip_model_routes
from .repository import oip_admin_routes, oip_repository_routes
from .server_routes import oip_server_routes

OIP_ROUTERS = (oip_server_routes, oip_model_routes, oip_repository_routes, oip_admin_routes)

__all__ = ["INFER_PATH", "INFER_VERSION_PATH", "OIP_ROUTERS", "InferEndpoint"]
