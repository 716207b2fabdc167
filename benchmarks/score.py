"""Compares `hsoftmax score` over many rows with the bare graph at its best batch size.

    python -m benchmarks.score --rows 10000000 --of npy --json score.json

It scores generated rows, each with a target, of the State of the Union model into Parquet. The bare
graph runs in as many threads as there are cores, each calling the session on rows in memory,
without reading, writing or checks. It is measured before and after. On a busy machine the CPU time
per row is more reliable than the rates.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from hsoftmax import bundle, exporter, scoring
from hsoftmax.models.arrays import Array
from hsoftmax.runners.local import LocalGraphRunner
from hsoftmax.scoring.graph_request import build_graph_request
from hsoftmax.scoring.row_batch import RowBatch

from .measure import report

_SAMPLE = Path(__file__).parent.parent / "examples" / "state_of_the_union"
_POOL_ROWS = 65_536  # rows that the bare graph reuses
_BATCHES = (1024, 4096, 8192, 16_384, 32_768)
_SECONDS = 5.0
_MAX_ROWS_PER_CHUNK = 50_000


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        opened = exporter.export_file(
            _SAMPLE / "weights.npz",
            Path(folder) / "repository" / "sample",
            source="theano",
            labels=_SAMPLE / "labels.txt",
        )
        source = _generate(Path(folder), options.rows, options.of, opened)
        os.sync()  # otherwise writing the rows to disk would disturb the measurement
        before = _bare(opened)
        seconds, peak, busy = _score(opened.path, source, Path(folder) / "scored.parquet")
        after = _bare(opened)
    rates = {batch: np.mean([before[batch], after[batch]], axis=0).tolist() for batch in _BATCHES}
    batch, (best, _) = max(rates.items(), key=lambda item: item[1][0])
    rate = options.rows / seconds
    row = {
        "rows": options.rows,
        "from": options.of,
        "rows/s": rate,
        "bare rows/s": best,
        "best batch": batch,
        "ratio": rate / best,
        "cores busy": busy,
        "CPU µs a row": busy * seconds / options.rows * 1e6,
        "bare CPU µs a row": min(cpu for _, cpu in rates.values()),
        "peak RSS MB": peak,
    }
    report("hsoftmax score --task target_log_prob, into Parquet", [row], options.json)


def _generate(folder: Path, rows: int, of: str, opened: bundle.Bundle) -> Path:
    """Write random rows to a file, with few of them in memory at a time."""
    path = folder / f"rows.{of}"
    width, targets = opened.manifest.hidden_size or 0, opened.manifest.num_targets or 0
    write = {"npy": _write_npy, "parquet": _write_parquet}[of]
    write(path, rows, width, _chunks(rows, width, targets))
    return path


def _chunks(rows: int, width: int, targets: int) -> Iterator[tuple[Array, Array, Array]]:
    rng = np.random.default_rng(0)
    for start in range(0, rows, _MAX_ROWS_PER_CHUNK):
        count = min(_MAX_ROWS_PER_CHUNK, rows - start)
        hidden = rng.standard_normal((count, width), dtype=np.float32)
        yield np.arange(start, start + count), hidden, rng.integers(0, targets, count)


def _write_npy(path: Path, rows: int, width: int, chunks: Iterator[tuple[Array, ...]]) -> None:
    dtype = np.dtype([("id", "i8"), ("input", "f4", (width,)), ("target", "i8")])
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (rows,)})
        for columns in chunks:
            records = np.empty(len(columns[0]), dtype)
            for name, column in zip(dtype.names or (), columns, strict=True):
                records[name] = column
            file.write(records.tobytes())


def _write_parquet(path: Path, rows: int, width: int, chunks: Iterator[tuple[Array, ...]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    state = pa.list_(pa.float32(), width)
    schema = pa.schema([("id", pa.int64()), ("input", state), ("target", pa.int64())])
    with pq.ParquetWriter(path, schema, use_dictionary=False, compression="none") as writer:
        for id, hidden, target in chunks:
            flat = pa.FixedSizeListArray.from_arrays(hidden.reshape(-1), width)
            writer.write_table(pa.table([id, flat, target], schema=schema))


def _bare(opened: bundle.Bundle) -> dict[int, tuple[float, float]]:
    """By batch size: rows a second of the graph alone, and CPU µs that a row takes."""
    run, bundle_info = (
        LocalGraphRunner(opened, native="auto"),
        scoring.BundleInfo.of(opened),
    )
    cores = len(os.sched_getaffinity(0))
    sizes = bundle_info.hidden_size, bundle_info.num_targets
    ((_, hidden, target),) = _chunks(_POOL_ROWS // 2, *sizes)
    found = {}
    with ThreadPoolExecutor(cores) as pool:
        for batch in _BATCHES:
            asked = [_graph_request(hidden[i : i + batch], target[i : i + batch])
                     for i in range(0, len(hidden), batch)]  # fmt: skip
            found[batch] = _rate(pool, run, asked, cores)
    return found


def _graph_request(hidden: Array, target: Array) -> scoring.GraphRequest:
    rows = len(hidden)
    nothing = [None] * rows
    one, bare = np.ones(rows, dtype=np.int64), np.zeros(rows, dtype=np.bool_)
    made = RowBatch(range(rows), nothing, hidden, target, one, bare, nothing, frozenset(), {})
    asked = build_graph_request(made, scoring.Task("target_log_prob"), "one", 0)
    assert asked is not None
    return asked


def _rate(
    pool: ThreadPoolExecutor,
    run: scoring.GraphRunner,
    asked: list[scoring.GraphRequest],
    cores: int,
) -> tuple[float, float]:
    list(pool.map(run, asked[:cores]))
    done, started, used = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started < _SECONDS / len(_BATCHES):
        done += sum(len(outputs[0]) for outputs in pool.map(run, asked * cores))
    used = time.process_time() - used
    return done / (time.perf_counter() - started), used / done * 1e6


def _score(path: Path, source: Path, output: Path) -> tuple[float, float, float]:
    """Run the command; return (seconds, peak resident MB, CPU seconds per second)."""
    command = [sys.executable, "-m", "hsoftmax", "score", str(path), str(source), str(output)]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "--task", "target_log_prob"])
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"score ended with status {status}")
    return seconds, used.ru_maxrss / 1e3, (used.ru_utime + used.ru_stime) / seconds


def _options() -> Any:  # noqa: ANN401  argparse's namespace
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--of", choices=["npy", "parquet"], default="npy", help="of the input")
    parser.add_argument("--folder", type=Path, help="where the rows go: 0.5 GB a million")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
