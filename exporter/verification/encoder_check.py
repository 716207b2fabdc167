"""Checks by running it that an encoder treats each row by itself, padded or not.

A model whose first dimension is not the batch, or that reads the padding of a row, gives plausible
wrong states. Drawn rows, alone and together, show it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hsoftmax import bundle
from hsoftmax.exporter.errors import EncoderRefused
from hsoftmax.models.arrays import Array, Float32
from hsoftmax.runtime.encoder_batches import join_states, make_batches
from hsoftmax.runtime.encoder_inputs import EncoderError, read_rows

SHORT, LONG = 8, 13  # positions; short and long rows share a batch if the encoder is padded
_TOLERANCE = 1e-4  # relative to the largest number of the states
_MAX_IDS = 2**24  # tables with more rows count as unbounded


@dataclass(frozen=True)
class EncoderProbe:
    """An encoder that is being exported, described so far, and its session."""

    description: bundle.Encoder
    session: Any  # onnxruntime's, which has no types

    def run(self, feeds: Mapping[str, Array]) -> Array:
        """Return the output. Raises EncoderRefused if the graph does not run."""
        name = self.description.outputs[0].name
        try:
            output: Array = self.session.run([name], dict(feeds))[0]
        except Exception as error:  # the runtime's, of any type
            reason = str(error).splitlines()[0]
            raise EncoderRefused(f"expected a model that runs, got: {reason}") from None
        return output

    def encode(self, rows: Mapping[str, Sequence[Array]]) -> Float32:
        """Return the states of the rows. Raises EncoderRefused."""
        try:
            batches = make_batches(self.description, read_rows(self.description, rows))
            outputs = [self.run(batch.feeds) for batch in batches]
            return join_states(self.description, batches, outputs)
        except EncoderError as error:
            raise EncoderRefused(str(error)) from None


def drawn_rows(encoder: bundle.Encoder, lengths: Sequence[int]) -> dict[str, list[Array]]:
    """Draw a row of each length for every input that a query gives."""
    rng = np.random.default_rng(0)
    return {
        port.name: [
            _drawn(port, length, encoder.num_ids.get(port.name, 2), rng) for length in lengths
        ]
        for port in encoder.row_inputs
    }


def count_ids(probe: EncoderProbe) -> dict[str, int]:
    """Return, by input, how many ids its table has: the first integer at which the graph fails."""
    found = {}
    for port in probe.description.row_inputs:
        if port.dtype in {"int64", "int32"}:
            count = _first_failure(probe, port)
            if count is not None:
                found[port.name] = count
    return found


def check_encoder(probe: EncoderProbe) -> None:
    """Raise EncoderRefused unless every row has the state that it has alone."""
    encoder = probe.description
    _compare(
        probe,
        [SHORT, SHORT, SHORT],
        f"is the first dimension of {', '.join(port.name for port in encoder.inputs)} the batch?",
    )
    if encoder.is_padded:
        made = " and ".join(name for name in (encoder.mask, encoder.lengths) if name)
        _compare(probe, [SHORT, LONG], f"does the model use {made} at every step?")


def _compare(probe: EncoderProbe, lengths: Sequence[int], question: str) -> None:
    rows = drawn_rows(probe.description, lengths)
    together = probe.encode(rows)
    alone = np.concatenate(
        [
            probe.encode({name: [given[i]] for name, given in rows.items()})
            for i in range(len(lengths))
        ]
    )
    if together.shape != alone.shape:
        raise EncoderRefused(
            f"expected as many states for rows together as alone, {len(alone)}, got {len(together)}"
        )
    error = float(np.abs(together - alone).max())
    if error > _TOLERANCE * max(1.0, float(np.abs(alone).max())):
        raise EncoderRefused(
            f"expected the same states for rows of {' and '.join(map(str, sorted(set(lengths))))} "
            f"positions together as alone, got a difference of {error:.2g}: {question}"
        )


def _first_failure(probe: EncoderProbe, port: bundle.Port) -> int | None:
    """Return the lowest integer that fails in this input, or None if there is no such one."""
    if not _runs(probe, port, 0) or _runs(probe, port, _MAX_IDS):
        return None
    runs, fails = 0, _MAX_IDS
    while fails - runs > 1:
        middle = (runs + fails) // 2
        if _runs(probe, port, middle):
            runs = middle
        else:
            fails = middle
    return fails


def _runs(probe: EncoderProbe, port: bundle.Port, value: int) -> bool:
    encoder = probe.description
    rows = drawn_rows(encoder, [SHORT])
    zeros = {name: [np.zeros_like(row) for row in given] for name, given in rows.items()}
    zeros[port.name] = [np.full_like(zeros[port.name][0], value)]
    [batch] = make_batches(encoder, read_rows(encoder, zeros))
    try:
        probe.run(batch.feeds)
    except EncoderRefused:
        return False
    return True


def _drawn(port: bundle.Port, length: int, num_ids: int, rng: np.random.Generator) -> Array:
    shape = [size if isinstance(size, int) else length for size in port.shape[1:]]
    if port.dtype == "float32":
        return rng.normal(size=shape).astype(np.float32)
    if port.dtype == "bool":
        return rng.integers(0, 2, size=shape).astype(bool)
    return rng.integers(0, num_ids, size=shape).astype(port.dtype)
