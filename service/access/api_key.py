"""One API key: its name, and the routes and models that it opens. It does not hold the secret."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, get_args

from hsoftmax.service.errors import Forbidden

KeyScope = Literal["read", "batch", "admin"]

SCOPES: tuple[KeyScope, ...] = get_args(KeyScope)
ALL_MODELS = ("*",)
UNNAMED, ADMIN = "default", "admin"  # the names of keys that have no name of their own


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A valid key: its name, and the requests and models that it allows.

    Attributes:
        name: stands for the key in log lines, metrics and jobs; several secrets may share it
        scopes: `read` opens queries and descriptions, `batch` files and jobs, `admin` changes of
            what is served
        models: names of bundles, or patterns such as `news-*`
        requests_per_second: most requests a second; None is no limit of its own
        rows_per_second: most rows of queries and streams a second; None is no limit of its own
    """

    name: str
    scopes: frozenset[KeyScope]
    models: tuple[str, ...] = ALL_MODELS
    requests_per_second: float | None = None
    rows_per_second: float | None = None

    def expect_scope(self, scope: KeyScope) -> None:
        """Raise Forbidden if the key lacks the scope."""
        if scope not in self.scopes:
            got = ", ".join(one for one in SCOPES if one in self.scopes) or "none"
            raise Forbidden(f"key {self.name!r}: expected the scope {scope}, got {got}")

    def allows_model(self, name: str) -> bool:
        """Return True if the key opens the bundle of this name."""
        return self.models == ALL_MODELS or any(fnmatchcase(name, one) for one in self.models)

    def expect_model(self, name: str) -> None:
        """Raise Forbidden if the key does not open the bundle."""
        if not self.allows_model(name):
            self._refuse(f"the model {name[:60]!r}")

    def expect_all_models(self) -> None:
        """Raise Forbidden if the key opens only some bundles."""
        if self.models != ALL_MODELS:
            self._refuse("all models")

    def _refuse(self, wanted: str) -> None:
        got = ", ".join(self.models) or "none"
        raise Forbidden(f"key {self.name!r}: expected one for {wanted}, got one for {got}")


UNNAMED_KEY = ApiKey(UNNAMED, frozenset(("read", "batch")))
ADMIN_KEY = ApiKey(ADMIN, frozenset(SCOPES))
