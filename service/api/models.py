"""GET /v1/models and /v1/models/{name}: what is served."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from hsoftmax.service.http.request_context import current
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.repository.repository import Repository

from .dependencies import Context


class ModelDescription(BaseModel):
    """One version of a bundle."""

    name: str
    version: str = Field(description="the version described")
    versions: list[str] = Field(description="all that are served; the last is the default")
    digest: str = Field(description="SHA-256 that names the whole bundle")
    family: str
    hidden_size: int | None
    num_targets: int | None
    num_clusters: int | None
    precision: str
    padding: str | None = Field(description="what slots beyond num_targets do")
    refused: dict[str, str] = Field(
        description="versions in the repository that are not served as they are, and why"
    )
    labels: bool = Field(description="whether targets have labels")
    tasks: list[str] = Field(description="the graphs it has")
    device: str = Field(description="where they run: cpu or cuda")
    providers: list[str] = Field(description="ONNX Runtime's execution providers, as it got them")


class BundleList(BaseModel):
    """Every bundle in its default version."""

    models: list[ModelDescription]


bundle_routes = APIRouter(prefix="/v1/models", tags=["bundles"])


@bundle_routes.get("", summary="Every bundle that is served")
async def list_bundles(context: Context) -> BundleList:
    served = (context.repository.find(name) for name in context.repository.names())
    return BundleList(models=[describe(one, context.repository) for one in served])


@bundle_routes.get("/{name}", summary="One bundle")
async def describe_bundle(
    context: Context,
    request: Request,
    name: str,
    version: Annotated[str | None, Query(description="the highest by default")] = None,
) -> ModelDescription:
    served = context.repository.find(name, version)
    current(request.scope).serve(served)
    return describe(served, context.repository)


def describe(served: LoadedBundle, repository: Repository) -> ModelDescription:
    """One version, as it is now."""
    manifest = served.manifest
    return ModelDescription(
        name=served.name,
        version=served.version,
        versions=repository.versions(served.name),
        refused=_refused(served.name, repository),
        digest=manifest.digest,
        family=manifest.family,
        hidden_size=manifest.hidden_size,
        num_targets=manifest.num_targets,
        num_clusters=manifest.num_clusters,
        precision=manifest.precision,
        padding=manifest.padding,
        labels=served.labels is not None,
        tasks=sorted(served.sessions),
        device=served.device.name,
        providers=served.providers,
    )


def _refused(name: str, repository: Repository) -> dict[str, str]:
    """Reasons by version."""
    parted = ((key.rpartition("/"), why) for key, why in repository.refused.items())
    return {version: why for (model, _, version), why in parted if model == name}
