"""Runs the service on Ray Serve: the same application, in as many replicas as its load needs.

serve run deploy/ray/serve.yaml
"""

import asyncio
from typing import Any

from ray import serve
from ray.serve import Application
from starlette.types import ASGIApp

from .service import Settings, create_app
from .service.context import context_of

_LOADING_INTERVAL_S = 0.1


@serve.ingress()
class Replica:
    """One process with the whole service in it, from its middleware to its threads."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._service = create_app(Settings(**settings))

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._service

    async def check_health(self) -> None:
        """Raises NotAlive or NotReady. Ray calls it before the first request, then regularly."""
        core = context_of(self._service)
        while not core.repository.is_loaded and core.health.failure is None:
            await asyncio.sleep(_LOADING_INTERVAL_S)
        core.health.expect_alive(core.engine)
        core.health.expect_ready(core.repository)


def application(settings: dict[str, Any]) -> Application:
    """Builds the application with these settings of `hsoftmax serve`.

    A replica takes one CPU of the cluster for each of its threads.
    """
    settings = {"threads": 1, **settings}
    deployment = serve.deployment(
        Replica,
        autoscaling_config={"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 16},
        max_ongoing_requests=128,
        ray_actor_options={"num_cpus": int(settings["threads"])},
    )
    bound: Application = deployment.bind(settings)
    return bound
