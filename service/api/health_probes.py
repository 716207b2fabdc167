"""Routes for liveness, readiness and metrics. They never wait for a graph."""

from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from hsoftmax.service.control import metrics_page
from hsoftmax.service.repository.rollouts import ROLLOUT

from .dependencies import Context


class Live(BaseModel):
    """The process and its compute threads work."""

    status: Literal["live"] = "live"


class Ready(BaseModel):
    """At least one bundle is served."""

    status: Literal["ready"] = "ready"
    models: list[str]
    refused: dict[str, str] = Field(
        description="reasons by <name>/<version> of versions that are not served, and of rollouts"
    )


health_routes = APIRouter(tags=["health"])
metrics_routes = APIRouter(tags=["health"])


@health_routes.get("/healthz/live", summary="Liveness check")
async def live(context: Context) -> Live:
    context.health.expect_alive(context.engine)
    return Live()


@health_routes.get("/healthz/ready", summary="Readiness check; status 503 gives the reason")
async def ready(context: Context) -> Ready:
    context.health.expect_ready(context.repository)
    repository = context.repository
    rollouts = {f"{name}/{ROLLOUT}": why for name, why in repository.refused_rollouts.items()}
    return Ready(models=repository.names(), refused={**repository.refused, **rollouts})


@metrics_routes.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(context: Context) -> Response:
    return Response(await metrics_page(context), media_type=CONTENT_TYPE_LATEST)
