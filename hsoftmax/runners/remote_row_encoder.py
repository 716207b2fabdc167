"""Turns texts and inputs of an encoder by name into hidden states, through a running server."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from hsoftmax.client import Client
from hsoftmax.client.calls import ModelAddress
from hsoftmax.client.score import score_calls
from hsoftmax.featurizers import TextInput
from hsoftmax.models.arrays import Float32
from hsoftmax.scoring import ErrorCode, RowError
from hsoftmax.scoring.bundle_info import NamedRow
from hsoftmax.stream_rows import ROWS_AT_ONCE, Record


@dataclass(frozen=True)
class RemoteRowEncoder:
    """Asks a server's bundle for the hidden state of each row. Several threads may call it.

    The server reads each row as the bundle itself does, so states and errors are those of a local
    run. Every response must come from the bundle with this digest.
    """

    client: Client
    model: ModelAddress
    digest: str
    takes_text: bool
    takes_named: bool

    def __call__(self, rows: Sequence[TextInput | NamedRow]) -> list[Float32 | RowError]:
        """Return for each row its state, [hidden_size], or its error. Raises ClientError."""
        inputs = ({"input": row} for row in rows)
        calls = score_calls(self.model, inputs, "hidden", ROWS_AT_ONCE, {}, self.digest)
        return [_state(record) for call in calls for record in self.client.send(call)]


def _state(record: Record) -> Float32 | RowError:
    if "error" in record:
        return RowError(cast(ErrorCode, record["code"]), str(record["error"]))
    return np.array(record["hidden"], dtype=np.float32)
