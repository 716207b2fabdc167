"""Counts all rows, and finds those whose id an earlier row has, before any row is scored.

    ids ─ hashed to 128 bits ─> a file ─ sorted, a part of them at a time ─> [duplicates, 2], a file

Memory is bounded for any number of rows. Rows without an id are never duplicates.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from io import BytesIO
from pathlib import Path

import numpy as np

from hsoftmax.models.arrays import Array, Int64
from hsoftmax.scoring.errors import RowError
from hsoftmax.scoring.formats import RowReader
from hsoftmax.scoring.requirements import RowId
from hsoftmax.scoring.row_batch import RowBatch, fail_rows

from .workspace import rename_durably, sync

_HASH_WORDS = 2  # 64-bit words in the hash of an id
_NO_ID = bytes(8 * _HASH_WORDS)
_MAX_SORTED_IDS = 2**21
_MAX_READ_IDS = 2**18


@dataclass(frozen=True)
class DuplicateIds:
    """The rows that repeat an id.

    Attributes:
        rows: how many rows the whole input has
        duplicates: [duplicates, 2], ascending: the number of such a row, and of the first row
            with the same id; both count from 0
    """

    rows: int
    duplicates: Int64


def find_duplicate_ids(
    reader: RowReader, path: Path, check_cancelled: Callable[[], None]
) -> DuplicateIds:
    """Reads the ids of all rows, and writes the duplicates to `path`.

    `check_cancelled` is called after each batch of ids, and may raise to stop.
    """
    hashes_path, temp_path = path.with_suffix(".ids"), path.with_suffix(".tmp")
    rows = _write_hashes(reader, hashes_path, check_cancelled)
    parts = max(1, -(-rows // _MAX_SORTED_IDS))
    duplicates = np.concatenate(
        [_duplicates_in_part(hashes_path, part, parts, check_cancelled) for part in range(parts)]
    )
    with temp_path.open("wb") as file:
        file.write(_as_npy(np.vstack([[rows, 0], duplicates[np.argsort(duplicates[:, 0])]])))
        file.flush()
        sync(file.fileno())
    rename_durably(temp_path, path)
    hashes_path.unlink()
    return read_duplicate_ids(path)


def read_duplicate_ids(path: Path) -> DuplicateIds:
    """Reads a file of `find_duplicate_ids`; the duplicates are mapped, not loaded."""
    stored: Int64 = np.load(path, mmap_mode="r")
    return DuplicateIds(int(stored[0, 0]), stored[1:])


def mark_duplicates(rows: RowBatch, first_row: int, duplicates: Int64) -> RowBatch:
    """Returns the rows with an error in each that repeats an id; `first_row` is their number."""
    return fail_rows(rows, duplicate_errors(rows.ids, first_row, duplicates))


def _as_npy(array: Int64) -> bytes:
    """The bytes of an NPY file. NumPy itself does not tell a full disk from other errors."""
    content = BytesIO()
    np.save(content, array)
    return content.getvalue()


def duplicate_errors(
    ids: Sequence[RowId], first_row: int, duplicates: Int64
) -> dict[int, RowError]:
    """Returns the errors of rows that repeat an id, by position; `first_row` is their number."""
    start, stop = np.searchsorted(duplicates[:, 0], [first_row, first_row + len(ids)])
    return {
        row - first_row: _duplicate_error(ids[row - first_row], first)
        for row, first in duplicates[start:stop].tolist()
    }


def _duplicate_error(id: RowId, first: int) -> RowError:
    shown = repr(id if not isinstance(id, str) or len(id) <= 60 else id[:60] + "…")
    return RowError(
        "duplicate_id", f"id: expected each once, got {shown} again, as in row {first + 1}"
    )


def _write_hashes(reader: RowReader, path: Path, check_cancelled: Callable[[], None]) -> int:
    """Writes the hash of every row's id. Returns the number of rows."""
    rows = 0
    with path.open("wb") as file:
        for ids in reader.ids():
            file.write(b"".join(map(_hash, ids)))
            rows += len(ids)
            check_cancelled()
    return rows


def _hash(id: RowId) -> bytes:
    """Hashes an id. An integer's hash differs from that of its digits as text."""
    if id is None:
        return _NO_ID
    content = id.encode("utf-8", "surrogatepass") if isinstance(id, str) else b"%d\0" % id
    person = type(id).__name__.encode()[:16]
    return blake2b(content, digest_size=8 * _HASH_WORDS, person=person).digest()


def _duplicates_in_part(
    path: Path, part: int, parts: int, check_cancelled: Callable[[], None]
) -> Int64:
    """Returns [duplicates, 2] of the ids whose hash falls into this part of them."""
    numbers, words = [np.empty(0, np.int64)], [np.empty((0, _HASH_WORDS), np.uint64)]
    for first, hashes in _read_hashes(path):
        in_part = np.flatnonzero((hashes[:, 0] % parts == part) & hashes.any(axis=1))
        numbers.append(first + in_part)
        words.append(hashes[in_part])
        check_cancelled()
    number, word = np.concatenate(numbers), np.concatenate(words)
    order = np.lexsort((number, word[:, 1], word[:, 0]))
    number, word = number[order], word[order]
    repeats = np.zeros(len(number), dtype=np.bool_)
    repeats[1:] = (word[1:] == word[:-1]).all(axis=1)
    firsts = number[np.maximum.accumulate(np.where(repeats, 0, np.arange(len(number))))]
    return np.column_stack([number[repeats], firsts[repeats]])


def _read_hashes(path: Path) -> Iterator[tuple[int, Array]]:
    """Yields (number of the first row, [rows, words])."""
    first = 0
    with path.open("rb") as file:
        while content := file.read(8 * _HASH_WORDS * _MAX_READ_IDS):
            hashes = np.frombuffer(content, dtype=np.uint64).reshape(-1, _HASH_WORDS)
            yield first, hashes
            first += len(hashes)
