"""Liveness and readiness of the process, with the reason if it is not live or not ready."""

from dataclasses import dataclass

from .engine import Engine
from .errors import NotAlive, NotReady
from .repository.repository import Repository


@dataclass(slots=True)
class Health:
    """Health flags of the process. The loader and the signal handler set them.

    Attributes:
        draining: True once the process was told to stop
        failure: reason why the repository cannot be read, or None
    """

    draining: bool = False
    failure: str | None = None

    def recover(self) -> None:
        """Clear the failure; call it when the repository can be read again."""
        self.failure = None

    def expect_alive(self, engine: Engine) -> None:
        """Raise NotAlive with the reason if the engine cannot finish its work."""
        if (fault := engine.fault()) is not None:
            raise NotAlive(f"not alive: {fault}")

    def is_ready(self, repository: Repository) -> bool:
        try:
            self.expect_ready(repository)
        except NotReady:
            return False
        return True

    def expect_ready_model(self, repository: Repository, name: str) -> None:
        """Raise NotReady with the reason unless the bundle is served, or was never here."""
        self.expect_ready(repository)
        if name in repository.names():
            return
        if name in repository.unloaded:
            raise NotReady(f"not ready: {name} was unloaded")
        for reason in repository.refusals(name).values():
            raise NotReady(f"not ready: {name} was refused: {reason}")

    def expect_ready(self, repository: Repository) -> None:
        """Raise NotReady with the reason unless at least one bundle is served."""
        if self.draining:
            raise NotReady("not ready: the service is draining before it stops")
        if self.failure is not None:
            raise NotReady(f"not ready: {self.failure}")
        if not repository.is_loaded:
            raise NotReady("not ready: bundles are being loaded")
        if not repository.names():
            raise NotReady(f"not ready: {_why_no_bundle(repository)}")


def _why_no_bundle(repository: Repository) -> str:
    refused = [*repository.refused.values(), *repository.refused_rollouts.values()]
    if not refused:
        return "the repository has no bundle: expected <name>/<version>/bundle.json"
    return "every bundle was refused: " + "; ".join(refused)
