"""The versions of a bundle that are served, and the rollout that chooses among them."""

from collections.abc import Mapping
from dataclasses import dataclass

from hsoftmax.service.errors import UnknownVersion

from .directory import VERSION
from .loaded_bundle import LoadedBundle
from .rollout import ResolvedRollout, choose

Versions = Mapping[int, LoadedBundle]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The versions by number, at least one, and the rollout of a bundle."""

    name: str
    versions: Versions
    rollout: ResolvedRollout

    @property
    def aliases(self) -> dict[str, str]:
        """The served version of each alias."""
        return {alias: str(version) for alias, version in self.rollout.aliases.items()}

    def find(self, version: str | None, key: bytes | None) -> LoadedBundle:
        """Return the requested version, a number or an alias; by default the client's.

        The client's is the one that the rollout has for its key, or for most requests; without a
        rollout the highest. Raises UnknownVersion if it is not served.
        """
        if version is None:
            return self.versions[self._default(key)]
        found = self.versions.get(self._number(version))
        if found is None:
            known = " or ".join(map(str, (*self.versions, *self.rollout.aliases)))
            raise UnknownVersion(f"{self.name}: expected version {known}, got {quote(version)}")
        return found

    def _default(self, key: bytes | None) -> int:
        shares = self.rollout.shares
        return choose(shares, self.name, key) if shares else max(self.versions)

    def _number(self, version: str) -> int:
        """Return the version that a number or an alias stands for; 0, which is none, if unknown."""
        return int(version) if VERSION.fullmatch(version) else self.rollout.aliases.get(version, 0)


def quote(text: str, longest: int = 60) -> str:
    """Return a client's text as an error shows it."""
    return repr(text if len(text) <= longest else text[:longest] + "…")
