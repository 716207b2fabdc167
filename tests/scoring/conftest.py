"""A tiny labelled model, its NumPy reference as a graph runner, and rows in every format."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hsoftmax import models
from hsoftmax.models.arrays import Array
from hsoftmax.scoring import BundleInfo, GraphRequest
from tests.exporter.conftest import theano_arrays

HIDDEN, CLUSTERS, BLOCK, TARGETS = 6, 4, 3, 11
LABELS = (*tuple(f"word{i}" for i in range(TARGETS - 1)), "étoile")
GRAPHS = frozenset({"target_log_prob", "log_probs", "top_k", "sample"})
FORMATS = ("ndjson", "csv", "parquet", "arrow", "npy")

Row = dict[str, Any]


def make_model(seed: int = 1) -> models.HierarchicalSoftmax:
    arrays = theano_arrays(CLUSTERS, BLOCK, HIDDEN, seed)
    return models.from_theano(**arrays, num_targets=TARGETS)


@pytest.fixture(scope="session")
def model() -> models.HierarchicalSoftmax:
    return make_model()


@pytest.fixture(scope="session")
def bundle_info() -> BundleInfo:
    return BundleInfo("words", "d" * 64, HIDDEN, TARGETS, GRAPHS, LABELS)


@pytest.fixture(scope="session")
def reference(model):
    """A `GraphRunner` that computes the NumPy reference."""

    def run_graph(request: GraphRequest) -> list[Array]:
        match request.graph:
            case "target_log_prob":
                return [models.hierarchical_softmax.target_log_prob(
                    model, request.hidden, request.row, request.target)]  # fmt: skip
            case "log_probs":
                return [models.hierarchical_softmax.log_probs(model, request.hidden)]
            case "top_k":
                log_prob, target = models.hierarchical_softmax.top_k(
                    model, request.hidden, request.task.k
                )
                rows = len(request.hidden)
                return [log_prob, target, np.full(rows, CLUSTERS), np.ones(rows, dtype=bool)]
            case _:
                rng = np.random.default_rng(request.seed)
                target = rng.integers(0, TARGETS, (len(request.hidden), request.task.num_samples))
                full = models.hierarchical_softmax.log_probs(model, request.hidden)
                return [target, np.take_along_axis(full, target, axis=1)]

    return run_graph


def make_rows(count: int, seed: int = 0) -> list[Row]:
    """Returns valid rows, with a target and a sequence each."""
    rng = np.random.default_rng(seed)
    return [
        {"id": i, "input": rng.normal(size=HIDDEN).astype(np.float32).tolist(),
         "target": int(rng.integers(TARGETS)), "sequence": f"s{i // 3}"}
        for i in range(count)
    ]  # fmt: skip


def write(path: Path, rows: list[Row]) -> Path:
    """Writes rows in the format of the path's extension."""
    {"ndjson": _ndjson, "csv": _csv, "parquet": _parquet, "arrow": _arrow, "npy": _npy}[
        path.suffix[1:]
    ](path, rows)
    return path


def _ndjson(path: Path, rows: list[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def _csv(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        names = [name for name in rows[0] if name != "input"]
        writer.writerow([*names, *(f"h{i}" for i in range(HIDDEN))])
        for row in rows:
            writer.writerow([*(_cell(row[name]) for name in names), *row["input"]])


def _cell(value: object) -> object:
    return json.dumps(value) if isinstance(value, list) else value


def table(rows: list[Row]) -> pa.Table:
    columns = {name: pa.array([row[name] for row in rows]) for name in rows[0] if name != "input"}
    inputs = pa.array([row["input"] for row in rows], pa.list_(pa.float32(), HIDDEN))
    return pa.table({**columns, "input": inputs})


def _parquet(path: Path, rows: list[Row]) -> None:
    pq.write_table(table(rows), path, row_group_size=5)


def _arrow(path: Path, rows: list[Row]) -> None:
    made = table(rows)
    with pa.ipc.new_file(path, made.schema) as writer:
        writer.write_table(made, max_chunksize=4)


def _npy(path: Path, rows: list[Row]) -> None:
    kinds = {"id": "i8", "input": ("f4", HIDDEN), "target": "i8", "sequence": "U8"}
    kinds |= {"targets": ("i8", len(rows[0].get("targets", ())))}
    dtype = [(name, *np.atleast_1d(np.array(kinds[name], dtype=object))) for name in rows[0]]
    array = np.zeros(len(rows), dtype=dtype)
    for name in rows[0]:
        array[name] = [row[name] for row in rows]
    np.save(path, array)


def read(path: Path) -> list[Row]:
    """Returns the records of an output; a plain NPY array as records of one `value`."""
    match path.suffix[1:]:
        case "ndjson":
            return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        case "csv":
            with path.open(newline="", encoding="utf-8") as file:
                return [{name: _parse_cell(name, cell) for name, cell in row.items()}
                        for row in csv.DictReader(file)]  # fmt: skip
        case "parquet":
            return pq.read_table(path).to_pylist()
        case "arrow":
            with pa.ipc.open_file(path) as reader:
                return reader.read_all().to_pylist()
        case _:
            array = np.load(path)
            names = array.dtype.names
            return [
                {name: row[name].tolist() for name in names} if names else {"value": row.tolist()}
                for row in array
            ]


def _parse_cell(name: str, cell: str) -> Any:
    if cell == "":
        return None
    return cell if name in ("error", "code", "sequence") else json.loads(cell)
