"""What all routes share: made once with the app, which has it as its state."""

from dataclasses import dataclass
from time import perf_counter

from fastapi import FastAPI

from .engine import Engine
from .health import Health
from .jobs import Jobs
from .logging import Log
from .metrics import Metrics
from .middleware.api_keys import Keys
from .middleware.tracing import Traces
from .repository.repository import Repository
from .settings import Settings
from .workers.channel import Peers


@dataclass(frozen=True, slots=True)
class Core:
    """The parts with a lifetime, and the settings they were made from."""

    settings: Settings
    repository: Repository
    engine: Engine
    health: Health
    keys: Keys
    metrics: Metrics
    log: Log
    jobs: Jobs
    peers: Peers | None = None
    traces: Traces | None = None

    def load(self) -> None:
        """Load the repository, and say how it went; nothing that happens here stops the process."""
        started = perf_counter()
        try:
            self.repository.load()
        except Exception:
            self.health.failure = "the repository could not be read"
            self.log.exception("load_failed")
            return
        bundles = self.repository.names()
        say = self.log.info if bundles else self.log.warning
        say(
            "loaded",
            bundles=bundles,
            refused=dict(self.repository.refused),
            device=self.repository.device.name,
            ms=round((perf_counter() - started) * 1e3, 1),
        )


def core_of(app: FastAPI) -> Core:
    """What `create_app` made the app of."""
    core: Core = app.state.core
    return core
