"""`create_app`: settings to an ASGI application, with nothing global in between.

A request passes plain ASGI layers before anything of the framework:

    RequestLog -> Tracing -> Authentication -> Compression -> Dispatcher -> endpoint
                                                                         -> FastAPI
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI
from starlette.datastructures import State
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from .api import (
    Endpoint,
    ScoreEndpoint,
    add_error_handlers,
    admin_routes,
    batch_routes,
    bundle_routes,
    file_routes,
    health_routes,
    page_routes,
    question_endpoints,
)
from .api.dispatch import Dispatcher
from .api.methods import Methods
from .api.openapi import document
from .context import Core, build_context, core_of
from .control import answer_peer, keep
from .logging import Log, json_log
from .middleware.authentication import Gate
from .middleware.compression import Compression
from .middleware.request_log import Rim
from .middleware.tracing import Traced
from .repository.polling import watch
from .resources import keep_for_good
from .settings import Settings
from .workers.channel import Peers

_ROUTERS = (health_routes, bundle_routes, admin_routes, file_routes, batch_routes, page_routes)
_DESCRIPTION = "Probabilities from softmaxes over output spaces too large to score in full."


class Application:
    """The service as an ASGI application.

    Attributes:
        api: FastAPI with every route, for its router and its OpenAPI document
        layers: the ASGI layers around the endpoints and `api`
    """

    def __init__(self, api: FastAPI, layers: ASGIApp) -> None:
        self.api = api
        self.layers = layers

    @property
    def state(self) -> State:
        """The state of `api`, which holds the context."""
        return self.api.state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.layers if scope["type"] == "http" else self.api
        await app(scope, receive, send)


def create_app(
    settings: Settings, *, log: Log | None = None, peers: Peers | None = None
) -> Application:
    """Build the service over a repository; it loads the bundles once the app has started.

    Raises:
        StartError: no such repository, or a device that is not there.
    """
    core = build_context(settings, log or json_log(settings.log_level), peers)
    endpoints: dict[str, Endpoint | ScoreEndpoint] = {
        **question_endpoints(core),
        "score": ScoreEndpoint(core),
    }
    api, routes = _api(core, endpoints)
    return Application(api, _layers(Methods(api, routes), endpoints, core))


def _api(
    core: Core, endpoints: Mapping[str, Endpoint | ScoreEndpoint]
) -> tuple[FastAPI, list[BaseRoute]]:
    """FastAPI, and all of its routes: its own, and the endpoints that are raw ASGI."""
    api = FastAPI(
        title="hsoftmax",
        version=version("hsoftmax"),
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # looked up at each request
        lifespan=_lifespan,
    )
    api.state.core = core
    for name, endpoint in endpoints.items():
        api.router.routes.append(Route(endpoint.path, endpoint, methods=["POST"], name=name))
    for router in _ROUTERS:
        api.include_router(router)
    routes = [*api.routes, *(route for router in _ROUTERS for route in router.routes)]
    add_error_handlers(api, routes)
    api.openapi = lambda: document(api)  # type: ignore[method-assign]  # FastAPI's own way
    return api, routes


def _layers(app: ASGIApp, endpoints: Mapping[str, ASGIApp], core: Core) -> ASGIApp:
    """The layers around FastAPI, from the inside out."""
    app = Dispatcher(app, endpoints)
    app = Compression(app, core.settings.compress_above)
    if core.keys.closed:
        app = Gate(app, core.keys)
    if core.traces is not None:
        app = Traced(app, core.traces)
    return Rim(app, core.metrics, core.log, core.health)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    core = core_of(app)
    if core.peers is not None:
        await core.peers.listen(partial(answer_peer, core))
    following = asyncio.create_task(_follow(core))
    core.jobs.start(asyncio.get_running_loop())
    yield
    await asyncio.to_thread(core.jobs.stop)
    if core.peers is not None:
        keep(core)
        core.peers.close()
    core.engine.close()
    if core.traces is not None:
        await asyncio.to_thread(core.traces.close)
    following.cancel()
    await asyncio.wait([following])


async def _follow(core: Core) -> None:
    """Load the repository, then keep up with it."""
    await asyncio.to_thread(core.load)
    keep_for_good()
    if core.settings.watch:
        await watch(core.repository, core.log, core.health.recover)
