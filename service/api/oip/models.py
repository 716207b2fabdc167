"""Routes of models under /v2/models: metadata, readiness, configuration and statistics."""

from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from hsoftmax.service import control
from hsoftmax.service.api.dependencies import Context
from hsoftmax.service.context import AppContext
from hsoftmax.service.http.request_context import request_context_of
from hsoftmax.service.inference.tensors.metadata import model_config, model_metadata
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.statistics import model_statistics

Json = dict[str, Any]


class TensorMetadata(BaseModel):
    """Name, datatype and shape of an input or output."""

    name: str
    datatype: str
    shape: list[int] = Field(description="sizes; -1 is any number")


class ModelMetadata(BaseModel):
    """The tensors of one version of a bundle."""

    name: str
    versions: list[str] = Field(description="all served versions, lowest first")
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    properties: dict[str, str]


class ModelReady(BaseModel):
    """The bundle is served."""

    name: str
    ready: Literal[True] = True


class ModelNames(BaseModel):
    """The names of the served bundles."""

    models: list[str]


class ModelStatistics(BaseModel):
    """Counts and nanoseconds of requests, an entry for each version."""

    model_stats: list[dict[str, Any]]


oip_model_routes = APIRouter(prefix="/v2/models", tags=["open inference"])


@oip_model_routes.get("", summary="Names of the served bundles")
async def model_names(context: Context, request: Request) -> ModelNames:
    allows = request_context_of(request.scope).allows_model
    return ModelNames(models=[name for name in context.repository.names() if allows(name)])


@oip_model_routes.get("/stats", summary="Statistics of all bundles")
async def all_statistics(context: Context, request: Request) -> ModelStatistics:
    allows = request_context_of(request.scope).allows_model
    return await _statistics(context, [one for one in context.repository if allows(one.name)])


@oip_model_routes.get("/{name}", summary="Metadata of a bundle: its tensors")
@oip_model_routes.get("/{name}/versions/{version}", summary="Metadata of one version")
async def metadata(
    context: Context, request: Request, name: str, version: str = ""
) -> ModelMetadata:
    bundle = _find(context, request, name, version)
    return ModelMetadata(**model_metadata(bundle, context.repository.versions(name)))


@oip_model_routes.get("/{name}/ready", summary="Readiness of a bundle")
@oip_model_routes.get("/{name}/versions/{version}/ready", summary="Readiness of one version")
async def ready(context: Context, request: Request, name: str, version: str = "") -> ModelReady:
    context.health.expect_alive(context.engine)
    context.health.expect_ready_model(context.repository, name)
    return ModelReady(name=_find(context, request, name, version).name)


@oip_model_routes.get("/{name}/config", summary="Configuration of a bundle, as Triton has it")
@oip_model_routes.get("/{name}/versions/{version}/config", summary="Configuration of one version")
async def config(context: Context, request: Request, name: str, version: str = "") -> Json:
    return model_config(_find(context, request, name, version))


@oip_model_routes.get("/{name}/stats", summary="Statistics of a bundle")
@oip_model_routes.get("/{name}/versions/{version}/stats", summary="Statistics of one version")
async def statistics(
    context: Context, request: Request, name: str, version: str = ""
) -> ModelStatistics:
    bundle = _find(context, request, name, version)
    bundles = [one for one in context.repository if one.name == name]
    return await _statistics(context, [bundle] if version else bundles)


def _find(context: AppContext, request: Request, name: str, version: str) -> LoadedBundle:
    """Return a bundle, and record it in the context of the request. Raises NotFound, NotReady."""
    bundle = context.repository.find(name, version or None)
    request_context_of(request.scope).set_model(bundle)
    return bundle


async def _statistics(context: AppContext, bundles: list[LoadedBundle]) -> ModelStatistics:
    listed = await control.statistics(context)
    keys = [(one.name, one.version) for one in bundles]
    return ModelStatistics(model_stats=model_statistics(keys, listed))
