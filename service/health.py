"""Whether this process should be sent requests, and if not, why."""

from dataclasses import dataclass

from .engine import Engine
from .errors import NotAlive, NotReady
from .repository.repository import Repository


@dataclass(slots=True)
class Health:
    """Flags that outlive any request; set by the loader and by the signal handler."""

    draining: bool = False
    failure: str | None = None

    def recover(self) -> None:
        """Forget a failure: the repository could be read since."""
        self.failure = None

    def expect_alive(self, engine: Engine) -> None:
        """Raise NotAlive, saying why, if work may not get done although the process is there."""
        if (fault := engine.fault()) is not None:
            raise NotAlive(f"not alive: {fault}")

    def is_ready(self, repository: Repository) -> bool:
        try:
            self.expect_ready(repository)
        except NotReady:
            return False
        return True

    def expect_ready(self, repository: Repository) -> None:
        """Raise NotReady, saying why, unless at least one bundle can be asked."""
        if self.draining:
            raise NotReady("not ready: the service is draining before it stops")
        if self.failure is not None:
            raise NotReady(f"not ready: {self.failure}")
        if not repository.is_loaded:
            raise NotReady("not ready: bundles are being loaded")
        if not repository.names():
            raise NotReady(f"not ready: {_why_nothing(repository)}")


def _why_nothing(repository: Repository) -> str:
    if not repository.refused:
        return "the repository has no bundle: expected <name>/<version>/bundle.json"
    return "every bundle was refused: " + "; ".join(repository.refused.values())
