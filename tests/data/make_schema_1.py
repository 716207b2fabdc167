"""Makes `schema_1/`: files of each format on disk, for the tests that later code still reads them.

It was run once, with commit 8c696da, the last one before formats had numbered schemas. It is kept
as the record of how the files were made; later code need not run it:

    python -m tests.data.make_schema_1 tests/data/schema_1

repository/     a bundle of each family, HierarchicalSoftmax in each precision
expected.json   for each bundle one input, and the NumPy reference's answer to it in float64
state/          a state folder with a job that has ended, one that is half done, and one file more
state.json      the ids in it, and the half-done job's rows
score/          `hsoftmax score` stopped half way: its input, and the workspace of `out.ndjson`

Formats hold no absolute path. Jobs remember their input by name, size and time of change, and
version control keeps no times: every file gets the time `MODIFIED`, which a test sets again on its
copy. Both jobs were made in the year 2100, as a job may wait 30 days at most.
"""

import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from hsoftmax import bundle, exporter, models, scoring
from hsoftmax.models import sparse_block_dot
from hsoftmax.runners.local import LocalRun
from hsoftmax.score_request import Call, open_order
from hsoftmax.service import Settings, create_app
from hsoftmax.service.jobs import submission
from hsoftmax.service.jobs.blocking_graph_runner import BlockingGraphRunner
from tests.data import MODIFIED
from tests.models.adaptive import adaptive
from tests.models.trees import random_huffman

YEAR_2100 = 4_102_444_800
HIDDEN, CLUSTERS, BLOCK, TARGETS = 4, 4, 3, 11
LABELS = (*(f"word{i}" for i in range(TARGETS - 1)), "étoile")
ROWS, SHARD, BATCH = 37, 10, 5

Json = dict[str, Any]


def main(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    expected = make_bundles(folder / "repository")
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    make_score(folder)  # first, as a service has one pool of threads for its whole process
    make_state(folder)


# --- bundles ------------------------------------------------------------------------------------


def hierarchical() -> models.HierarchicalSoftmax:
    rng = np.random.default_rng(1)
    shapes = [(HIDDEN, CLUSTERS), (CLUSTERS,), (CLUSTERS, HIDDEN, BLOCK), (CLUSTERS, BLOCK)]
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    return models.from_theano(*arrays, num_targets=TARGETS)


def block_dot() -> models.SparseBlockDot:
    rng = np.random.default_rng(2)
    return sparse_block_dot.build(rng.normal(size=(3, 4, 2, 3)), rng.normal(size=(4, 3)))


def make_bundles(repository: Path) -> Json:
    made: dict[str, tuple[models.Model, exporter.Fidelity]] = {
        "hierarchical": (hierarchical(), exporter.Fidelity()),
        "hierarchical_fp16": (hierarchical(), exporter.Fidelity(precision="fp16")),
        "hierarchical_int8": (hierarchical(), exporter.Fidelity(precision="int8")),
        "adaptive": (adaptive(4, (3, 5), hidden=HIDDEN, widths=(2, None)), exporter.Fidelity()),
        "huffman": (random_huffman(9, HIDDEN), exporter.Fidelity()),
        "block_dot": (block_dot(), exporter.Fidelity()),
    }
    for name, (model, fidelity) in made.items():
        to = exporter.destination(repository / name / "1")
        labels = LABELS if name == "hierarchical" else None
        exporter.export_model(model, to, labels=labels, fidelity=fidelity)
    return {name: expected(repository / name / "1") for name in made}


def expected(path: Path) -> Json:
    """Return the results of the reference for the weights as the bundle stores them."""
    opened = bundle.open_bundle(path)
    manifest = opened.manifest
    model = models.from_tensors(manifest.family, bundle.load_tensors(opened), manifest.attributes)
    rng = np.random.default_rng(3)
    if isinstance(model, models.SparseBlockDot):
        h = rng.normal(size=(1, 2, 2)).astype(np.float32)
        taken = np.array([[0, 2]]), np.array([[3, 1]])
        output = sparse_block_dot.block_dot(model, h, *taken)
        return {"digest": manifest.digest, "h": h.tolist(), "input_index": taken[0].tolist(),
                "output_index": taken[1].tolist(), "output": output.tolist()}  # fmt: skip
    hidden = rng.normal(size=(1, HIDDEN)).astype(np.float32)
    log_probs = models.reference(model).log_probs(model, hidden)
    return {"digest": manifest.digest, "hidden": hidden.tolist(), "log_probs": log_probs.tolist()}


# --- rows ---------------------------------------------------------------------------------------


def rows() -> str:
    """Rows as lines of JSON, two of which are wrong."""
    rng = np.random.default_rng(4)
    made: list[Json] = [
        {"id": f"r{i}", "input": rng.normal(size=HIDDEN).astype(np.float32).tolist(),
         "target": int(rng.integers(TARGETS)), "sequence": i // 7}
        for i in range(ROWS)
    ]  # fmt: skip
    made[13]["input"] = made[13]["input"][1:]
    made[21]["target"] = TARGETS
    return "".join(json.dumps(row) + "\n" for row in made)


def set_time(path: Path) -> None:
    os.utime(path, (MODIFIED, MODIFIED))


# --- the state folder ---------------------------------------------------------------------------


def make_state(folder: Path) -> None:
    state, held = folder / "state", threading.Event()
    hold_graphs_when(held, beyond=3)
    submission.time = SimpleNamespace(time=lambda: YEAR_2100)  # type: ignore[assignment]
    settings = Settings(repository=folder / "repository", state=state, threads=1,
                        job_shard_rows=SHARD)  # fmt: skip
    with TestClient(create_app(settings)) as http:
        while http.get("/healthz/ready").status_code != 200:
            time.sleep(0.01)
        ended = start(http, state)
        while (status := http.get(f"/v1/batches/{ended}").json()["status"]) != "completed":
            assert status not in ("failed", "expired"), status
            time.sleep(0.01)
        held.set()
        half = start(http, state)
        time.sleep(1.0)  # for shards to be on the disk
        assert http.get(f"/v1/batches/{half}").json()["status"] == "in_progress"
        more = upload(http, state, "more.ndjson")
    told = {"ended": ended, "half_done": half, "uploaded": more}
    (folder / "state.json").write_text(json.dumps(told, indent=1) + "\n")


def hold_graphs_when(held: threading.Event, beyond: int) -> None:
    """Once `held` is set, let so many runs of graphs pass, and no more."""
    really, passed = BlockingGraphRunner.__call__, 0

    def run(self: BlockingGraphRunner, asked: Any) -> Any:
        nonlocal passed
        passed += held.is_set()
        while passed > beyond:
            self._check()  # which ends it when the service stops
            time.sleep(0.005)
        return really(self, asked)

    BlockingGraphRunner.__call__ = run  # type: ignore[method-assign]


def start(http: TestClient, state: Path) -> str:
    query = {"input_file_id": upload(http, state, "rows.ndjson"), "task": "perplexity",
             "endpoint": "/v1/models/hierarchical/score", "completion_window": "24h"}  # fmt: skip
    answer = http.post("/v1/batches", json=query)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def upload(http: TestClient, state: Path, name: str) -> str:
    answer = http.post("/v1/files", files={"file": (name, rows())}, data={"purpose": "batch"})
    assert answer.status_code == 200, answer.text
    for path in (state / "files").iterdir():
        set_time(path)
    return str(answer.json()["id"])


# --- hsoftmax score -----------------------------------------------------------------------------


class Stopped(BaseException):
    """The process would end here."""


def make_score(folder: Path) -> None:
    opened = bundle.open_bundle(folder / "repository" / "hierarchical" / "1")
    path = folder / "score" / "in.ndjson"
    path.parent.mkdir()
    path.write_text(rows())
    set_time(path)
    call = Call(path, path.with_name("out.ndjson"), scoring.Task("perplexity"),
                scoring.parse_columns(()), batch=BATCH, shard_rows=SHARD)  # fmt: skip
    order = open_order(call, scoring.Facts.of(opened))

    def stop(rows: int, failed: int, part: float) -> None:
        if rows >= 2 * SHARD + BATCH:
            raise Stopped

    try:
        scoring.run_job(order, LocalRun(opened), resume=False, threads=1, progress=stop)
    except Stopped:
        order.source.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
