"""Checks that the resolver chose the lowest version that each bound of the project names.

The resolver takes a higher version where another package, or the registry, excludes the lowest.
No test would run with such a bound, so it must be raised to the version that was chosen.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)(\[(?P<extras>[^]]*)\])?(>=(?P<lowest>[0-9.]+))?"
)


def lowest_versions(pyproject: Path, extra: str) -> dict[str, str]:
    """Return the lower bound of each direct dependency, with those of the extra."""
    project = tomllib.loads(pyproject.read_text())["project"]
    return dict(_bounds(project, project["dependencies"])) | dict(
        _bounds(project, project["optional-dependencies"][extra])
    )


def _bounds(project: dict, requirements: list[str]) -> Iterator[tuple[str, str]]:
    for requirement in requirements:
        found = _REQUIREMENT.match(requirement)
        assert found is not None
        if found["name"] == project["name"]:
            for extra in found["extras"].split(","):
                yield from _bounds(project, project["optional-dependencies"][extra])
        elif found["lowest"]:
            yield _normalized(found["name"]), found["lowest"]


def false_bounds(lowest: dict[str, str], resolved: str) -> list[str]:
    """Return one sentence for each bound whose version is not among the resolved ones."""
    pins = dict(line.split("==") for line in resolved.splitlines() if "==" in line)
    return [
        f"{name}: expected version {version}, which pyproject.toml names as the lowest, but"
        f" {pins.get(name)} was resolved: raise the bound"
        for name, version in lowest.items()
        if _without_zeros(pins.get(name, "")) != _without_zeros(version)
    ]


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _without_zeros(version: str) -> str:
    return re.sub(r"(\.0)+$", "", version)
