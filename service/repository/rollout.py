"""A rollout: which version of a model answers the requests that name none.

    {"aliases": {"stable": 3, "canary": 4}, "split": {"stable": 90, "canary": 10}}

An alias is another name of a version. The split has the percentage of requests of each version, and
`pin` sends all of them to one version. Without either the highest version answers. `Rollouts`
reads it from the repository and from the state folder.
"""

import hashlib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from hsoftmax.service.codecs.json import decode
from hsoftmax.service.errors import InvalidRollout

from .directory import VERSION

STABLE = "stable"  # the alias that a rollback takes by default

_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,62}")
_MAX_ENTRIES = 256
_WHOLE = 100
_TOLERANCE = 1e-6  # of the sum of percentages such as 33.3

VersionName = int | str  # a version, or an alias of one


class Rollout(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A rollout as it is written.

    Attributes:
        pin: the version that answers all requests that name none
        aliases: the version of each alias
        split: the percentage of these requests by version
    """

    pin: VersionName | None = None
    aliases: dict[str, VersionName] = {}
    split: dict[str, float] = {}


_DECODER = msgspec.json.Decoder(Rollout)


@dataclass(frozen=True, slots=True)
class Share:
    """The part of one version in the split.

    Attributes:
        name: the version or alias as the split names it
    """

    name: str
    version: int
    weight: float


@dataclass(frozen=True, slots=True)
class ResolvedRollout:
    """A rollout whose names are served versions.

    Attributes:
        shares: the versions of the split, or the pinned one; empty for the highest
    """

    aliases: Mapping[str, int] = field(default_factory=dict)
    shares: tuple[Share, ...] = ()


def parse_rollout(content: bytes) -> Rollout:
    """Return the rollout in a JSON object. Raises Malformed or InvalidQuery."""
    rollout = decode(_DECODER, content)
    _check_aliases(rollout)
    _check_split(rollout)
    return rollout


def resolve(rollout: Rollout, served: Collection[int]) -> ResolvedRollout:
    """Return the rollout with versions in place of names. Raises InvalidRollout if one lacks."""
    aliases = {name: int(one) for name, one in rollout.aliases.items()}
    for name, version in aliases.items():
        _expect_served(f"aliases.{name}", version, served)
    shares = _shares(rollout, aliases)
    for share in shares:
        where = "pin" if rollout.pin is not None else f"split.{share.name}"
        _expect_served(where, share.version, served)
    return ResolvedRollout(aliases, shares)


def resolve_served(rollout: Rollout, served: Collection[int]) -> ResolvedRollout:
    """Return the part of the rollout whose versions are served: the rest gets their requests.

    Raises:
        InvalidRollout: no version that is to answer requests is served.
    """
    aliases = {name: int(one) for name, one in rollout.aliases.items()}
    shares = _shares(rollout, aliases)
    remaining = tuple(share for share in shares if share.version in served and share.weight > 0)
    if shares and not remaining:
        raise InvalidRollout(f"expected a version that is served, got {_listed(shares)}")
    kept = {name: version for name, version in aliases.items() if version in served}
    return ResolvedRollout(kept, remaining)


def choose(shares: Sequence[Share], model: str, key: bytes | None) -> int:
    """Return the version for a client's key: the same in every process, without shared state.

    It is weighted rendezvous hashing: each version draws -ln(u) / weight, with u from the hash of
    model, name and key, and the smallest wins. So each gets its part of the keys. Where a part
    grows, it keeps its keys; where it shrinks, it gets no new ones. Without a key the version with
    the largest part is chosen.
    """
    if key is None or len(shares) == 1:
        return max(shares, key=lambda share: share.weight).version
    drawn = ((_draw(share, model, key), share.version) for share in shares if share.weight > 0)
    return min(drawn)[1]


def rolled_back(rollout: Rollout, version: VersionName) -> Rollout:
    """Return the rollout that sends all requests to one version; its aliases stay."""
    return Rollout(pin=version, aliases=rollout.aliases)


def _draw(share: Share, model: str, key: bytes) -> float:
    prefix = f"{model}\0{share.name}\0".encode("utf-8", "surrogateescape")
    number = int.from_bytes(hashlib.sha256(prefix + key).digest()[:7], "big")
    return -math.log((number + 1) / (2**56 + 1)) / share.weight  # of a number above 0 and below 1


def _shares(rollout: Rollout, aliases: Mapping[str, int]) -> tuple[Share, ...]:
    if rollout.pin is not None:
        name = str(rollout.pin)
        return (Share(name, _version_of(name, "pin", aliases), _WHOLE),)
    return tuple(
        Share(name, _version_of(name, "split", aliases), weight)
        for name, weight in rollout.split.items()
    )


def _version_of(name: str, where: str, aliases: Mapping[str, int]) -> int:
    """Return the version that a name stands for. Raises InvalidRollout."""
    if VERSION.fullmatch(name):
        return int(name)
    if name in aliases:
        return aliases[name]
    known = ", ".join(aliases) or "none"
    raise InvalidRollout(
        f"{where}: expected a version or an alias ({known}), got {_quote(name)}: add it to aliases"
    )


def _expect_served(where: str, version: int, served: Collection[int]) -> None:
    if version not in served:
        known = " or ".join(map(str, sorted(served)))
        raise InvalidRollout(f"{where}: expected version {known}, got {version}")


def _check_aliases(rollout: Rollout) -> None:
    if len(rollout.aliases) + len(rollout.split) > _MAX_ENTRIES:
        raise InvalidRollout(f"expected at most {_MAX_ENTRIES} aliases and parts of the split")
    for name, version in rollout.aliases.items():
        if not _ALIAS.fullmatch(name):
            raise InvalidRollout(
                f"aliases: expected names of letters, digits, '.', '_' and '-' that begin with a "
                f"letter, got {_quote(name)}"
            )
        if not VERSION.fullmatch(str(version)):
            raise InvalidRollout(f"aliases.{name}: expected a version, got {_quote(str(version))}")


def _check_split(rollout: Rollout) -> None:
    """Raise InvalidRollout unless there is a pin, or percentages that sum up to 100, or neither."""
    aliases = {name: int(one) for name, one in rollout.aliases.items()}
    if rollout.pin is not None and rollout.split:
        raise InvalidRollout("expected pin or split, got both")
    for name, weight in rollout.split.items():
        if not 0 <= weight <= _WHOLE:  # NaN is refused too
            raise InvalidRollout(
                f"split.{_cut(name)}: expected 0 to {_WHOLE} percent, got {weight:g}"
            )
    total = math.fsum(rollout.split.values())
    if rollout.split and abs(total - _WHOLE) > _TOLERANCE:
        raise InvalidRollout(
            f"split: expected percentages that sum up to {_WHOLE}, got {total:.6g}"
        )
    _shares(rollout, aliases)


def _listed(shares: Collection[Share]) -> str:
    return " and ".join(str(share.version) for share in shares)


def _quote(text: str) -> str:
    return repr(_cut(text))


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:60] + "…"
