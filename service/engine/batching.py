"""Several calls as one run of their graph, and its outputs as theirs again.

An input whose first dimension is free is concatenated and cut; one whose first dimension is fixed
(`k`, `max_blocks`) is a parameter, and only calls that agree on it are merged. Pairs point at rows
by number, so that `row` is moved along with the rows in front of it.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from hsoftmax.bundle import Port
from hsoftmax.models.arrays import Array
from hsoftmax.runtime.sessions import Feeds, Session

from .call import GraphCall, Key, Slice

_ROW = "row"  # of `hidden`, for each pair


def count_units(call: GraphCall) -> int:
    """Pairs where the graph has pairs, else rows."""
    return len(call.feeds[_ROW]) if _ROW in call.feeds else call.rows


def key(call: GraphCall) -> Key:
    """Calls of equal keys can be merged."""
    if call.apart:
        return (id(call.session), id(call))
    ports = call.session.graph.inputs
    return (id(call.session), *(_part_of_key(port, call.feeds[port.name]) for port in ports))


def merged(slices: Sequence[Slice]) -> Feeds:
    """The feeds of all slices, one after the other."""
    return _joined([_cut(one) for one in slices], slices[0].item.call.session)


def _joined(parts: list[dict[str, Array]], session: Session) -> Feeds:
    if len(parts) == 1:
        return parts[0]
    if _ROW in parts[0]:
        _move_rows(parts)
    return {
        port.name: np.concatenate([part[port.name] for part in parts])
        if _is_counted(port)
        else parts[0][port.name]
        for port in session.graph.inputs
    }


def store(outputs: Sequence[Array], slices: Sequence[Slice]) -> None:
    """Give each job its part of a batch's outputs. Raises ValueError on a wrong number of units."""
    parts = _parted(outputs, [one.stop - one.start for one in slices])
    for one, part in zip(slices, parts, strict=True):
        _store(one, part)


def _parted(outputs: Sequence[Array], counts: Sequence[int]) -> Iterator[list[Array]]:
    """Outputs as parts of so many units each. Raises ValueError on a wrong number of units."""
    units = sum(counts)
    if any(len(output) != units for output in outputs):
        got = [len(output) for output in outputs]
        raise ValueError(f"outputs: expected {units} units in each, got {got}")
    at = 0
    for count in counts:
        yield [output[at : at + count] for output in outputs]
        at += count


def _store(one: Slice, parts: list[Array]) -> None:
    item = one.item
    if one.stop - one.start == item.units:
        item.arrays = parts
        return
    if not item.arrays:
        item.arrays = [np.empty((item.units, *part.shape[1:]), part.dtype) for part in parts]
    for whole, part in zip(item.arrays, parts, strict=True):
        whole[one.start : one.stop] = part


def _cut(one: Slice) -> dict[str, Array]:
    """The slice's own feeds, with only those rows that it points at."""
    feeds = dict(one.item.call.feeds)
    if one.stop - one.start == one.item.units:
        return feeds
    units = slice(one.start, one.stop)
    rows = units
    if _ROW in feeds:
        pointed = feeds[_ROW][units]
        rows = slice(int(pointed.min()), int(pointed.max()) + 1)
    for port in one.item.call.session.graph.inputs:
        if _is_counted(port):
            of_rows = port.shape[0] == "batch"
            feeds[port.name] = feeds[port.name][rows if of_rows else units]
    if _ROW in feeds:
        feeds[_ROW] = feeds[_ROW] - rows.start
    return feeds


def _move_rows(parts: list[dict[str, Array]]) -> None:
    before = 0
    for part in parts:
        part[_ROW] = part[_ROW] + before
        before += len(part["hidden"])


def _is_counted(port: Port) -> bool:
    return bool(port.shape) and isinstance(port.shape[0], str)


def _part_of_key(port: Port, array: Array) -> object:
    return (array.dtype.char, array.shape[1:]) if _is_counted(port) else array.tobytes()
