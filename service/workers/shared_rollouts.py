"""The last accepted rollout of each model, which workers share.

A worker that starts while a rollout's file is wrong follows the rollout that the others follow.
"""

import msgspec

from .shared_record import SharedRecord

_TYPE = dict[str, str]  # by the model's name, as JSON


class SharedRollouts:
    """Rollouts as JSON in a shared record."""

    def __init__(self, record: SharedRecord) -> None:
        self._record = record

    def find(self, name: str) -> bytes | None:
        """Return the rollout of a model, or None."""
        rollout = self._read().get(name)
        return None if rollout is None else rollout.encode()

    def put(self, name: str, rollout: bytes) -> None:
        """Replace the rollout of a model."""
        with self._record.locked():
            rollouts = self._read()
            if rollouts.get(name) != rollout.decode():
                self._record.write(msgspec.json.encode({**rollouts, name: rollout.decode()}))

    def _read(self) -> dict[str, str]:
        value = self._record.read()
        return msgspec.json.decode(value, type=_TYPE) if value else {}
