"""The index of the repository as the Open Inference Protocol lists it."""

from typing import Any

from hsoftmax.service.repository.repository import Repository

READY, UNAVAILABLE = "READY", "UNAVAILABLE"


def repository_index(repository: Repository, *, ready_only: bool) -> list[dict[str, Any]]:
    """Return an entry for each version: those that are served, and the refused with the reason."""
    refused = dict(repository.refused)
    entries = [
        _entry(one.name, one.version, READY, refused.pop(f"{one.name}/{one.version}", ""))
        for one in repository
    ]
    if not ready_only:
        for key, reason in refused.items():
            name, _, version = key.rpartition("/")
            entries.append(_entry(name, version, UNAVAILABLE, reason))
        entries += [_entry(name, "", UNAVAILABLE, "unloaded") for name in repository.unloaded]
        served = repository.names()
        for name, reason in repository.refused_rollouts.items():
            if name not in served:
                entries.append(_entry(name, "", UNAVAILABLE, reason))
    return sorted(entries, key=lambda entry: (entry["name"], entry["version"]))


def _entry(name: str, version: str, state: str, reason: str) -> dict[str, Any]:
    return {"name": name, "version": version, "state": state, "reason": reason}
