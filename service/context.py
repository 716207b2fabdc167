"""AppContext: the components that all routes share. The app stores it in its state."""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Protocol

from starlette.datastructures import State

from hsoftmax.runtime.devices import Device, DeviceError
from hsoftmax.runtime.sessions import choose_device

from .access.api_keys import ApiKeys
from .access.rate_limits import LocalBuckets, RateLimits
from .engine import INLINE_MAX_COST, Engine, Lane, QueueLimits
from .errors import StartError
from .health import Health
from .http.body_budget import BodyBudget
from .inference.texts import TextQueue
from .jobs import JobManager
from .jobs.state_dir import find_state_dir
from .logging import Log
from .metrics import Metrics
from .middleware.tracing import Tracer, build_tracer
from .repository.repository import Repository
from .repository.store_mirror import StoreMirror, open_mirror
from .settings import Settings
from .statistics import Statistics
from .workers.channel import WorkerChannel
from .workers.decisions import unloaded

_EXPECTED = "a folder with <name>/<version>/bundle.json, a model folder or one bundle"


@dataclass(frozen=True, slots=True)
class AppContext:
    """The components of one app, and the settings that they were built from."""

    settings: Settings
    repository: Repository
    engine: Engine
    health: Health
    keys: ApiKeys
    rate_limits: RateLimits
    metrics: Metrics
    statistics: Statistics
    log: Log
    jobs: JobManager
    body_budget: BodyBudget
    texts: TextQueue
    encoder_rows: TextQueue  # rows of streams, which run their encoder as they are parsed
    channel: WorkerChannel | None = None
    tracer: Tracer | None = None
    mirror: StoreMirror | None = None

    def load(self) -> None:
        """Load the repository and log the result. A failure does not stop the process."""
        started = perf_counter()
        try:
            self.repository.load()
        except Exception:
            self.health.failure = "the repository could not be read"
            self.log.exception("load_failed")
            return
        bundles = self.repository.names()
        write_event = self.log.info if bundles else self.log.warning
        hint = {} if bundles or self.repository.refused else {"expected": _EXPECTED}
        write_event(
            "loaded",
            **hint,
            bundles=bundles,
            refused=dict(self.repository.refused),
            device=self.repository.device.name,
            native=self.repository.device.instruction_set,
            ms=round((perf_counter() - started) * 1e3, 1),
        )


def build_context(settings: Settings, log: Log, channel: WorkerChannel | None) -> AppContext:
    """Build all components from the settings. Raises StartError."""
    device = _device(settings)
    if device.fallback_reason:
        log.warning("device_fallback", device=device.name, reason=device.fallback_reason)
    metrics, health = Metrics(), Health()
    metrics.start_lanes(Lane)
    mirror = open_mirror(settings, log, metrics)
    path = settings.repository if mirror is None else mirror.cache.repository
    assert isinstance(path, Path)
    repository = Repository(
        path,
        model_name=settings.model_name,
        device=device,
        check_hashes=settings.check_hashes,
        log=log,
        unloaded=frozenset() if channel is None else unloaded(channel.followed),
        state=find_state_dir(settings).rollouts,
        accepted=None if channel is None else channel.rollouts,
    )
    engine = _engine(settings, log, metrics)
    return AppContext(
        settings=settings,
        repository=repository,
        engine=engine,
        health=health,
        keys=ApiKeys(settings, log),
        rate_limits=RateLimits(settings, LocalBuckets() if channel is None else channel.buckets),
        metrics=metrics,
        statistics=Statistics(),
        log=log,
        jobs=JobManager(settings, repository, engine, health, metrics, log),
        body_budget=BodyBudget(settings.max_bodies_bytes),
        texts=TextQueue(),
        encoder_rows=TextQueue(),
        channel=channel,
        tracer=build_tracer(log),
        mirror=mirror,
    )


def _device(settings: Settings) -> Device:
    try:
        return choose_device(
            settings.device, settings.threads, settings.native, settings.gpu_memory
        )
    except DeviceError as error:
        raise StartError(str(error)) from None


def _engine(settings: Settings, log: Log, metrics: Metrics) -> Engine:
    return Engine(
        settings.threads,
        log,
        metrics,
        limits=QueueLimits(
            settings.max_queue_requests, settings.max_queue_rows, settings.max_queue_bytes
        ),
        timeout=settings.timeout,
        inline_max_cost=INLINE_MAX_COST,
        batching=settings.batching,
    )


class HasState(Protocol):
    """Has a state: the application, or the FastAPI object in it."""

    @property
    def state(self) -> State: ...


def context_of(app: HasState) -> AppContext:
    """Return the context of an app that `create_app` built."""
    context: AppContext = app.state.context
    return context
