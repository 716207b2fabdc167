"""Parsers of the files of rows that `hsoftmax score` and jobs read."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hsoftmax.scoring import BundleInfo, Columns, RowResults, Task
from hsoftmax.scoring.formats import ndjson
from hsoftmax.scoring.formats.registry import detect_columns, open_inputs
from hsoftmax.scoring.requirements import row_requirements
from hsoftmax.scoring.row_batch import RowBatch
from tests.scoring.conftest import GRAPHS, HIDDEN, LABELS, TARGETS, make_rows, write

from .npy_bombs import npy_bombs
from .parsers import Parser

_INFO = BundleInfo("words", "d" * 64, HIDDEN, TARGETS, GRAPHS, LABELS)
_TASKS = (Task("target_log_prob"), Task("perplexity", oov="exclude"), Task("top_k"))
_ROWS_READ = 64
_MAX_BATCHES = 2000


def rows_parser(name: str, work: Path) -> Parser:
    """Build the parser of one kind of file."""
    extension = name.removesuffix("-file")
    path = work / f"rows.{extension}"
    seeds = [write(path, make_rows(7)).read_bytes(), _with_labels(path)]
    bombs: dict[str, Callable[[], list[bytes]]] = {
        "ndjson": _ndjson_bombs, "csv": _csv_bombs, "npy": _npy_bombs, "arrow": _arrow_bombs,
        "parquet": _parquet_bombs,
    }  # fmt: skip
    return Parser(seeds, bombs[extension], lambda content: _run(path, content))


def _with_labels(path: Path) -> bytes:
    rows = [{**row, "id": f"é{row['id']}", "target": LABELS[row["target"]]} for row in make_rows(3)]
    if path.suffix != ".npy":
        return write(path, rows).read_bytes()
    array = np.zeros(3, dtype=[("id", "U4"), ("input", "f4", HIDDEN), ("targets", "U6", 2)])
    array["id"], array["targets"] = [row["id"] for row in rows], [["word1", "étoile"]] * 3
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _run(path: Path, content: bytes) -> None:
    """Read the file as a job does: columns, ids, rows for each task, and records of errors."""
    path.write_bytes(content)
    columns = detect_columns([path], Columns())
    reader = open_inputs([path], columns, _INFO)
    try:
        for _, ids in zip(range(_MAX_BATCHES), reader.ids(), strict=False):
            set(ids)
        for task in _TASKS:
            requirements = row_requirements(task, reader.target_shape == "none", _INFO)
            position, batches = reader.begin(), 0
            while (raw := reader.read(position, _ROWS_READ)) is not None and batches < _MAX_BATCHES:
                _encode(reader.parse(raw, requirements))
                position, batches = raw.end, batches + 1
    finally:
        reader.close()


def _encode(rows: RowBatch) -> None:
    scored = np.setdiff1d(np.arange(len(rows)), list(rows.row_errors))
    results = RowResults(rows.lines, rows.ids, scored, {}, rows.row_errors)
    ndjson.error_lines(results)
    for i in scored.tolist():
        ndjson.orjson.dumps([rows.ids[i], rows.sequences[i]])


def _ndjson_bombs() -> list[bytes]:
    return [
        b'{"id":"caf\xe9","input":[1],"target":0}\n{"id":"a","note":"\xe9","input":[1]}\n',
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
        b'{"input":[' + b"[]," * 5_000_000 + b"[]]}\n",
        b'{"input":[' + b"NaN," * 1_000_000 + b"1]}\n",
        b"\n" * 20_000,
        b"x" * (33 << 20),
    ]


def _csv_bombs() -> list[bytes]:
    header = b"id,target," + b",".join(b"h%d" % i for i in range(HIDDEN)) + b"\n"
    return [
        b"x" * (20 << 20),
        header + b'"' * 1_000_000 + b"\n",
        header + b"," * 1_000_000 + b"\n",
        header + b'"' + b"a" * 200_000 + b'",1' + b",0" * HIDDEN + b"\n",
        header + b"caf\xe9,1" + b",0" * HIDDEN + b"\n\0,1" + b",0" * HIDDEN + b"\n",
        header + b"a,1," + b"9" * 5000 + b",0" * (HIDDEN - 1) + b"\n",
        b"id,target,input\na,1," + b"[" * 100_000 + b"\n",
        b'id,targets,input\na,"' + b"[" * 100_000 + b'",[1]\n',
        b"a" * 100 + b"\n" + b"\n" * 20_000,
    ]


def _npy_bombs() -> list[bytes]:
    array = np.zeros(2, dtype=[("id", "U2"), ("input", "f4", HIDDEN), ("target", "U2")])
    stream = io.BytesIO()
    np.save(stream, array)
    made = []
    for point in (0x110000, 0xFFFFFFFF, 0xD800):
        content = bytearray(stream.getvalue())
        content[128:132] = point.to_bytes(4, "little")
        made.append(bytes(content))
    return [*npy_bombs(), *made]


def _arrow_file(columns: dict[str, pa.Array]) -> bytes:
    sink, table = io.BytesIO(), pa.table(columns)
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _bad_columns() -> list[dict[str, pa.Array]]:
    inputs = pa.array([[0.1] * HIDDEN] * 3, pa.list_(pa.float32()))
    text = pa.array([b"caf\xe9", b"a", b"b"], pa.binary()).view(pa.string())
    offsets = pa.array([0, HIDDEN, 10**6, 3 * HIDDEN], pa.int32())
    buffers, numbers = [None, offsets.buffers()[1]], pa.array([0.1] * 18, pa.float32())
    outside = pa.Array.from_buffers(pa.list_(pa.float32()), 3, buffers, children=[numbers])
    return [{"id": text, "input": inputs}, {"input": inputs, "target": text}, {"input": outside}]


def _arrow_bombs() -> list[bytes]:
    return [*map(_arrow_file, _bad_columns()), b"ARROW1\0\0", b"ARROW1\0\0" + b"\xff" * 64]


def _parquet_bombs() -> list[bytes]:
    made = []
    for columns in _bad_columns()[:2]:
        sink = io.BytesIO()
        pq.write_table(pa.table(columns), sink)
        made.append(sink.getvalue())
    return [*made, b"PAR1" + b"\xff" * 64 + b"PAR1"]
