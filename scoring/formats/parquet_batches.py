"""Reads the batches of a Parquet file, in which few bytes may stand for a long text in many rows.

A file has a text once, in a dictionary, and names it in any number of rows and lists. pyarrow
copies the text into each of them, so a batch has fewer rows if the dictionary has long texts. For
lists pyarrow keeps the dictionary, as one row may have any number of texts; `arrow_sizes` counts
their bytes before they are copied.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .arrow_types import Arrow

_BUFFER_BYTES = 2**20
_BATCH_BYTES = 16 * 2**20  # of the texts of a column


def parquet_batches(
    path: Path, start: int, names: Sequence[str], rows: int
) -> tuple[int, Iterator[Arrow]]:
    """Returns (rows before the row group of row `start`, batches from that group on).

    A batch has at most `rows` rows.
    """
    metadata = pq.read_metadata(path)
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    ends = np.cumsum(sizes) if sizes else np.zeros(0, dtype=np.int64)
    first = int(np.searchsorted(ends, start, side="right"))
    return int(sum(sizes[:first])), _batches(path, range(first, len(sizes)), names, rows)


def _batches(path: Path, groups: range, names: Sequence[str], rows: int) -> Iterator[Arrow]:
    lists, texts = _text_columns(pq.read_metadata(path), names)
    file, probe = _open(path, lists), _open(path, texts)
    present = [name for name in names if name in file.schema_arrow.names]
    for group in groups:
        longest = _longest(probe, group, texts) if texts else 0
        most = max(1, min(rows, _BATCH_BYTES // max(1, longest)))
        yield from file.iter_batches(most, row_groups=[group], columns=present)


def _open(path: Path, dictionaries: Sequence[str]) -> Arrow:
    """Opens the file; of the columns `dictionaries` the dictionary is kept."""
    # With pre_buffer it would read a row group at once.
    return pq.ParquetFile(
        path, pre_buffer=False, buffer_size=_BUFFER_BYTES, read_dictionary=list(dictionaries)
    )


def _text_columns(metadata: Arrow, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the paths of the columns of these names that hold text or bytes: (lists, others)."""
    columns = map(metadata.schema.column, range(len(metadata.schema)))
    paths = [
        column.path
        for column in columns
        if column.physical_type == "BYTE_ARRAY" and column.logical_type.type != "DECIMAL"
    ]
    lists = [path for path in paths if any(path.startswith(f"{name}.") for name in names)]
    return lists, [path for path in paths if path in names]


def _longest(probe: Arrow, group: int, names: Sequence[str]) -> int:
    """Returns the bytes of the longest text in the dictionaries of a row group.

    With the first row pyarrow returns the whole dictionary.
    """
    row = next(iter(probe.iter_batches(1, row_groups=[group], columns=list(names))), None)
    lengths = [] if row is None else [pc.binary_length(one.dictionary) for one in row.columns]
    return max((pc.max(one).as_py() or 0 for one in lengths), default=0)
