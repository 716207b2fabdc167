"""Cuts an encoder's rows into batches of one shape, and picks the states of its output.

The functions are NumPy alone. `runtime.encoder` and the service run the batches.

Rows of different lengths run together, padded on the right, if the encoder has a mask or lengths
input. Without one padding would change the states, so only rows of equal length run together.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hsoftmax.bundle import Encoder, Port
from hsoftmax.models.arrays import Array, Float32, Int64

from .encoder_inputs import EncoderError, EncoderRows, is_sequence

_MAX_PADDED_RATIO = 2  # the longest row of a batch, as a multiple of the shortest


@dataclass(frozen=True)
class EncoderBatch:
    """Rows that run together.

    Attributes:
        rows: their numbers in the query
        lengths: the positions of each row
        feeds: the inputs of the graph
    """

    rows: Int64
    lengths: Int64
    feeds: Mapping[str, Array]


def make_batches(encoder: Encoder, rows: EncoderRows) -> list[EncoderBatch]:
    """Cut the rows into as few batches as their lengths and the encoder allow."""
    groups = _groups_of_like_length if encoder.is_padded else _groups_of_equal_length
    return [_batch(encoder, rows, numbers) for numbers in groups(rows.lengths)]


def join_states(
    encoder: Encoder, batches: Sequence[EncoderBatch], outputs: Sequence[Array]
) -> Float32:
    """Return the states of all rows, [rows, hidden_size], from the output of each batch.

    With position `each` a row has one state for each of its positions, in order.

    Raises:
        EncoderError: an output of another shape, or a state that is not finite.
    """
    states: dict[int, Array] = {}
    for batch, output in zip(batches, outputs, strict=True):
        states.update(zip(batch.rows.tolist(), _states_of(encoder, batch, output), strict=True))
    in_order = [states[number] for number in range(len(states))]
    for number, state in enumerate(in_order):
        if not np.isfinite(state).all():
            raise EncoderError(f"inputs row {number}: the encoder's state is not a finite number")
    return np.ascontiguousarray(np.concatenate(in_order), dtype=np.float32)


def _groups_of_equal_length(lengths: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, row in enumerate(lengths):
        groups.setdefault(row, []).append(number)
    yield from groups.values()


def _groups_of_like_length(lengths: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    """Yield groups whose padding is at most as large as the rows in them."""
    group: list[int] = []
    shortest = 0
    for number in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        length = max(lengths[number], default=1)
        if group and length > _MAX_PADDED_RATIO * shortest:
            yield group
            group = []
        if not group:
            shortest = length
        group.append(number)
    if group:
        yield group


def _batch(encoder: Encoder, rows: EncoderRows, numbers: list[int]) -> EncoderBatch:
    lengths = np.array([max(rows.lengths[i], default=1) for i in numbers])
    feeds = {
        port.name: _pad(port, [rows.arrays[port.name][i] for i in numbers], int(lengths.max()))
        for port in encoder.row_inputs
    }
    for port in encoder.inputs:
        if port.name == encoder.mask:
            real = np.arange(_num_positions(port, lengths)) < lengths[:, None]
            feeds[port.name] = real.astype(port.dtype)
        elif port.name == encoder.lengths:
            feeds[port.name] = lengths.astype(port.dtype)
    return EncoderBatch(np.array(numbers), lengths, feeds)


def _num_positions(mask: Port, lengths: Int64) -> int:
    """The width of the mask: that of the longest row, unless it is fixed."""
    size = mask.shape[1]
    return size if isinstance(size, int) else int(lengths.max())


def _pad(port: Port, rows: Sequence[Array], length: int) -> Array:
    """Stack the rows; those of a sequence get zeros behind them up to the longest."""
    if not is_sequence(port) or all(len(row) == len(rows[0]) for row in rows):
        return np.stack(rows)
    padded = np.zeros((len(rows), length, *rows[0].shape[1:]), dtype=port.dtype)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded


def _states_of(encoder: Encoder, batch: EncoderBatch, output: Array) -> Iterator[Array]:
    """Yield the states of each row of a batch, [1, hidden_size] or one for each position."""
    position, lengths = encoder.position, batch.lengths.tolist()
    axes = 2 if position is None else 3
    if output.ndim != axes or len(output) != len(lengths):
        raise EncoderError(f"{encoder.outputs[0].name}: got shape {list(output.shape)}")
    if position is not None and encoder.is_padded and output.shape[1] != max(lengths):
        raise EncoderError(
            f"{encoder.outputs[0].name}: expected a state for each of {max(lengths)} positions, "
            f"got {output.shape[1]}"
        )
    for state, length in zip(output, lengths, strict=True):
        stop = length if encoder.is_padded else len(output[0])
        match position:
            case None:
                yield state[None]
            case "first":
                yield state[:1]
            case "last":
                yield state[stop - 1 : stop]
            case "each":
                yield state[:stop]
