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
    parts = [_states_of(encoder, *pair) for pair in zip(batches, outputs, strict=True)]
    if encoder.position == "each":
        return _expect_finite(_in_order(batches, parts), _row_numbers(batches, parts))
    hidden = np.empty((sum(len(batch.rows) for batch in batches), parts[0].shape[1]), np.float32)
    for batch, states in zip(batches, parts, strict=True):
        hidden[batch.rows] = states
    return _expect_finite(hidden, np.arange(len(hidden)))


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


def _states_of(encoder: Encoder, batch: EncoderBatch, output: Array) -> Array:
    """Return the states of a batch: [rows, hidden_size], or those of `each` row by row.

    Raises:
        EncoderError: an output of another shape.
    """
    position, name = encoder.position, encoder.outputs[0].name
    rows, longest = len(batch.rows), int(batch.lengths.max())
    if output.ndim != (2 if position is None else 3) or len(output) != rows:
        raise EncoderError(f"{name}: expected states of {rows} rows, got {list(output.shape)}")
    if position is None:
        return output
    if encoder.is_padded and output.shape[1] != longest:
        got = output.shape[1]
        raise EncoderError(f"{name}: expected states of {longest} positions, got {got}")
    lengths = batch.lengths if encoder.is_padded else np.full(rows, output.shape[1])
    states: Array
    match position:
        case "first":
            states = output[:, 0]
        case "last":
            states = output[np.arange(rows), lengths - 1]
        case "each":
            states = output[np.arange(output.shape[1]) < lengths[:, None]]
    return states


def _row_numbers(batches: Sequence[EncoderBatch], parts: Sequence[Array]) -> Int64:
    """Return the row of each state, in the order of the rows."""
    return np.sort(_rows_of_states(batches, parts))


def _in_order(batches: Sequence[EncoderBatch], parts: Sequence[Array]) -> Array:
    """Return the states of `each` position in the order of the rows, not of the batches."""
    order = np.argsort(_rows_of_states(batches, parts), kind="stable")
    return np.concatenate(parts)[order]


def _rows_of_states(batches: Sequence[EncoderBatch], parts: Sequence[Array]) -> Int64:
    """Return the row of each state, in the order of the batches."""
    rows = []
    for batch, states in zip(batches, parts, strict=True):
        same = len(states) == batch.lengths.sum()  # else a model with other positions than ids
        counts = batch.lengths if same else len(states) // len(batch.rows)
        rows.append(np.repeat(batch.rows, counts))
    return np.concatenate(rows)


def _expect_finite(hidden: Array, rows: Int64) -> Float32:
    """Return the states as float32. Raises EncoderError for one that is not finite."""
    finite = np.isfinite(hidden).all(axis=1)
    if not finite.all():
        row = rows[np.argmin(finite)]
        raise EncoderError(f"inputs row {row}: the encoder's state is not a finite number")
    return np.ascontiguousarray(hidden, dtype=np.float32)
