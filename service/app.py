"""`create_app`: settings to a FastAPI application, with nothing global in between."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from .answers import UNFORESEEN, error_response, of_status
from .core import Core
from .engine import Engine
from .errors import InvalidQuery, ServiceError
from .health import Health
from .log import Log, json_log
from .metrics import Metrics
from .openapi import document
from .repository import Repository
from .rim import Rim
from .routes import bundle_routes, health_routes, page_routes, question_routes
from .sessions import choose_device, share_threads
from .settings import Settings
from .shortcut import Shortcut

_DESCRIPTION = "Probabilities from softmaxes over output spaces too large to score in full."


def create_app(settings: Settings, *, log: Log | None = None) -> FastAPI:
    """The service over a repository; bundles are loaded once the app has started.

    Raises:
        StartError: no such repository, or a device that is not there.
    """
    core = _core(settings, log or json_log(settings.log_level))
    app = FastAPI(
        title="hsoftmax",
        version=version("hsoftmax"),
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # looked up at each request
        lifespan=_lifespan,
    )
    app.state.core = core
    questions = question_routes(core)
    app.router.routes.extend(questions)
    for router in (health_routes(core), bundle_routes(core), page_routes()):
        app.include_router(router)
    _handle_errors(app)
    short = Shortcut(app.build_middleware_stack(), {route.name: route.app for route in questions})
    app.middleware_stack = Rim(short, core)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]  # FastAPI's own way
    return app


def core_of(app: FastAPI) -> Core:
    """What `create_app` made the app of."""
    core: Core = app.state.core
    return core


def _core(settings: Settings, log: Log) -> Core:
    device = choose_device(settings.device)
    share_threads(settings.threads)
    return Core(
        settings=settings,
        repository=Repository(
            settings.repository, device=device, check_hashes=settings.check_hashes, log=log
        ),
        engine=Engine(settings.threads, log),
        health=Health(),
        metrics=Metrics(),
        log=log,
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    core = core_of(app)
    loading = asyncio.create_task(asyncio.to_thread(core.load))
    yield
    core.engine.close()
    await loading


def _handle_errors(app: FastAPI) -> None:
    """All kinds of error, one shape; the rim logs those that nobody foresaw."""

    @app.exception_handler(ServiceError)
    async def service_error(request: Request, error: ServiceError) -> Response:
        return error_response(error, request.scope)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        allowed = (error.headers or {}).get("Allow")
        return error_response(of_status(error.status_code, allowed), request.scope, error.headers)

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        return error_response(UNFORESEEN, request.scope)

    @app.exception_handler(RequestValidationError)
    async def parameter_error(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return error_response(InvalidQuery(f"{where}: {first['msg']}"), request.scope)
