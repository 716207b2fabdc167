"""A first look at all rows: how many there are, and which repeat the id of one before.

    ids ─ 128 bits each ─> a file ─ a part of them at a time, sorted ─> [repeats, 2], a file

Memory is bounded whatever the number of rows. Rows without an id repeat nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

from hsoftmax.models.arrays import Array, Int64
from hsoftmax.scoring.errors import RowError
from hsoftmax.scoring.formats import RowReader
from hsoftmax.scoring.row_batch import RowBatch, RowId

from .workspace import place, sync

_WORDS = 2  # of 64 bits, that stand for an id
_NONE = bytes(8 * _WORDS)
_SORTED_AT_ONCE = 2**21  # ids
_READ_AT_ONCE = 2**18


@dataclass(frozen=True)
class DuplicateIds:
    """What was seen; `repeated` has the number of each such row, and of the first of its id."""

    rows: int
    duplicates: Int64


def find_duplicate_ids(
    reader: RowReader, path: Path, check_cancelled: Callable[[], None]
) -> DuplicateIds:
    """Look at all rows, and keep what is seen at `path`; `check_cancelled` is called often."""
    spill, aside = path.with_suffix(".ids"), path.with_suffix(".tmp")
    rows = 0
    with spill.open("wb") as file:
        for ids in reader.ids():
            file.write(b"".join(map(_digest, ids)))
            rows += len(ids)
            check_cancelled()
    found = [
        _duplicates_in_part(spill, part, of, check_cancelled)
        for of in [_parts(rows)]
        for part in range(of)
    ]
    duplicates = np.concatenate(found)
    with aside.open("wb") as file:
        np.save(file, np.vstack([[rows, 0], duplicates[np.argsort(duplicates[:, 0])]]))
        file.flush()
        sync(file.fileno())
    place(aside, path)
    spill.unlink()
    return read_duplicate_ids(path)


def read_duplicate_ids(path: Path) -> DuplicateIds:
    """What `make_survey` has kept; the repeats stay on disk."""
    kept: Int64 = np.load(path, mmap_mode="r")
    return DuplicateIds(int(kept[0, 0]), kept[1:])


def mark_duplicates(rows: RowBatch, first_row: int, duplicates: Int64) -> RowBatch:
    """The rows with a flaw in each that repeats an id; `first_row` is the first one's number."""
    start, stop = np.searchsorted(duplicates[:, 0], [first_row, first_row + len(rows)])
    if start == stop:
        return rows
    row_errors = {
        row - first_row: _duplicate_error(rows.ids[row - first_row], first)
        for row, first in duplicates[start:stop].tolist()
    }
    kept = np.ones(len(rows), dtype=np.bool_)
    kept[list(row_errors)] = False
    return replace(
        rows,
        target=rows.target[np.repeat(kept, rows.counts)],
        counts=np.where(kept, rows.counts, 0),
        oov=rows.oov - row_errors.keys(),
        row_errors={**row_errors, **rows.row_errors},
    )


def _duplicate_error(id: RowId, first: int) -> RowError:
    shown = repr(id if not isinstance(id, str) or len(id) <= 60 else id[:60] + "…")
    return RowError(
        "duplicate_id", f"id: expected each once, got {shown} again, as in row {first + 1}"
    )


def _digest(id: RowId) -> bytes:
    """An integer is not the text that looks like it."""
    if id is None:
        return _NONE
    told = id.encode("utf-8", "surrogatepass") if isinstance(id, str) else b"%d\0" % id
    return blake2b(told, digest_size=8 * _WORDS, person=type(id).__name__.encode()[:16]).digest()


def _parts(rows: int) -> int:
    return max(1, -(-rows // _SORTED_AT_ONCE))


def _duplicates_in_part(
    spill: Path, part: int, of: int, check_cancelled: Callable[[], None]
) -> Int64:
    """[repeats, 2] of the ids that belong to this part of them."""
    numbers, words = [np.empty(0, np.int64)], [np.empty((0, _WORDS), np.uint64)]
    for first, some in _read(spill):
        mine = np.flatnonzero((some[:, 0] % of == part) & some.any(axis=1))
        numbers.append(first + mine)
        words.append(some[mine])
        check_cancelled()
    number, word = np.concatenate(numbers), np.concatenate(words)
    order = np.lexsort((number, word[:, 1], word[:, 0]))
    number, word = number[order], word[order]
    again = np.zeros(len(number), dtype=np.bool_)
    again[1:] = (word[1:] == word[:-1]).all(axis=1)
    firsts = number[np.maximum.accumulate(np.where(again, 0, np.arange(len(number))))]
    return np.column_stack([number[again], firsts[again]])


def _read(spill: Path) -> Iterator[tuple[int, Array]]:
    """(number of the first row, [rows, words]) of what was written."""
    first = 0
    with spill.open("rb") as file:
        while content := file.read(8 * _WORDS * _READ_AT_ONCE):
            some = np.frombuffer(content, dtype=np.uint64).reshape(-1, _WORDS)
            yield first, some
            first += len(some)
