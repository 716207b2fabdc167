"""Merges compatible calls into one graph run and splits the outputs.

An input with a free first dimension is concatenated over the calls. An input with a fixed first
dimension (`k`, `max_blocks`) is a parameter: only calls with equal parameters are merged. The input
`row` of pairs holds row numbers, so each call's numbers are shifted by the rows in front of it.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from hsoftmax.bundle import Port
from hsoftmax.models.arrays import Array
from hsoftmax.runtime.sessions import Feeds, Session

from .call import BatchKey, GraphCall, Slice

_ROW = "row"  # for each pair, the number of its row in `hidden`


def count_items(call: GraphCall) -> int:
    """The call's pairs if its graph takes pairs, else its rows."""
    return len(call.feeds[_ROW]) if _ROW in call.feeds else call.rows


def batch_key(call: GraphCall) -> BatchKey:
    """The key of a call: calls with equal keys can be merged."""
    if call.isolated:
        return (id(call.session), id(call))
    ports = call.session.graph.inputs
    return (id(call.session), *(_key_part(port, call.feeds[port.name]) for port in ports))


def merge_feeds(slices: Sequence[Slice]) -> Feeds:
    """Concatenate the feeds of the slices, in order."""
    return _concatenate([_slice_feeds(one) for one in slices], slices[0].item.call.session)


def _concatenate(parts: list[dict[str, Array]], session: Session) -> Feeds:
    if len(parts) == 1:
        return parts[0]
    if _ROW in parts[0]:
        _shift_rows(parts)
    return {
        port.name: np.concatenate([part[port.name] for part in parts])
        if _has_free_axis(port)
        else parts[0][port.name]
        for port in session.graph.inputs
    }


def store_outputs(outputs: Sequence[Array], slices: Sequence[Slice]) -> None:
    """Copy each slice's part of a batch's outputs to its work item.

    Raises:
        ValueError: an output has another number of items than the slices together.
    """
    parts = _split(outputs, [one.num_items for one in slices])
    for one, part in zip(slices, parts, strict=True):
        _store_slice(one, part)


def _split(outputs: Sequence[Array], counts: Sequence[int]) -> Iterator[list[Array]]:
    """Split the outputs into parts of these lengths. Raises ValueError on another total."""
    total = sum(counts)
    if any(len(output) != total for output in outputs):
        got = [len(output) for output in outputs]
        raise ValueError(f"outputs: expected {total} units in each, got {got}")
    start = 0
    for count in counts:
        yield [output[start : start + count] for output in outputs]
        start += count


def _store_slice(one: Slice, parts: list[Array]) -> None:
    item = one.item
    if one.num_items == item.num_items:
        item.arrays = parts
        return
    if not item.arrays:
        item.arrays = [np.empty((item.num_items, *part.shape[1:]), part.dtype) for part in parts]
    for whole, part in zip(item.arrays, parts, strict=True):
        whole[one.start : one.stop] = part


def _slice_feeds(one: Slice) -> dict[str, Array]:
    """The feeds of a slice; for pairs, with only the rows that the slice refers to."""
    feeds = dict(one.item.call.feeds)
    if one.num_items == one.item.num_items:
        return feeds
    items = slice(one.start, one.stop)
    rows = items
    if _ROW in feeds:
        used = feeds[_ROW][items]
        rows = slice(int(used.min()), int(used.max()) + 1)
    for port in one.item.call.session.graph.inputs:
        if _has_free_axis(port):
            is_per_row = port.shape[0] == "batch"
            feeds[port.name] = feeds[port.name][rows if is_per_row else items]
    if _ROW in feeds:
        feeds[_ROW] = feeds[_ROW] - rows.start
    return feeds


def _shift_rows(parts: list[dict[str, Array]]) -> None:
    """Add to each part's row numbers the rows of the parts in front of it."""
    before = 0
    for part in parts:
        part[_ROW] = part[_ROW] + before
        before += len(part["hidden"])


def _has_free_axis(port: Port) -> bool:
    """True if the first dimension of the input is free: the batch or the pairs."""
    return bool(port.shape) and isinstance(port.shape[0], str)


def _key_part(port: Port, array: Array) -> object:
    """The part of a batch key that one input decides: its type and shape, or its value."""
    return (array.dtype.char, array.shape[1:]) if _has_free_axis(port) else array.tobytes()
