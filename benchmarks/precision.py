"""What do fewer bits buy, and what do they cost? fp32, fp16 and int8 side by side.

    python -m benchmarks.precision --batches 1,8,64,256,1024

One uniform target a row, or with `--task log_probs` the whole distribution; microseconds are per
row. Loading is a session of the task, in a process that has mapped nothing: time, and private
memory that it takes. Errors and perplexity are those of the trained language model, see
examples/state_of_the_union, over its held-out positions.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnxruntime

from hsoftmax import bundle
from hsoftmax.exporter import Fidelity, export_file
from hsoftmax.models.arrays import Array
from hsoftmax.runtime.sessions import open_session

from .measure import machine, medians_of, report
from .options import integers, sizes, two_level_options
from .synthetic import Written, two_level

PRECISIONS: tuple[bundle.Precision, ...] = get_args(bundle.Precision)
_EXAMPLE = Path(__file__).parents[1] / "examples" / "state_of_the_union"
_LOAD = """
import sys, time
from pathlib import Path
from hsoftmax.runtime.sessions import open_session

def private():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))

open_session(Path(sys.argv[2]))
before, start = private(), time.perf_counter()
session = open_session(Path(sys.argv[1]))
print(time.perf_counter() - start, (private() - before) / 1024)
"""


def main() -> None:
    options = _options()
    title = f"{options.task}: {sizes(options)}"
    speed, costs = _speed(options), _costs(options)
    report(f"{title}, 1 thread, us per row", speed, None)
    print()
    report(f"{title}: bytes, a session's load, error on the language model", costs, None)
    if options.json is not None:
        content = {"title": title, "machine": machine(), "speed": speed, "costs": costs}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def _speed(options: argparse.Namespace) -> list[dict[str, Any]]:
    with ExitStack() as stack:
        made = {name: stack.enter_context(_written(options, name)) for name in PRECISIONS}
        sessions = {name: model.session(options.task) for name, model in made.items()}
        return [_measure(made["fp32"], sessions, batch, options) for batch in options.batches]


def _measure(
    made: Written,
    sessions: Mapping[str, onnxruntime.InferenceSession],
    batch: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    query = partial(_query, made, np.random.default_rng(batch), batch, options.task)
    runs = {name: partial(session.run, None) for name, session in sessions.items()}
    repeats = options.repeats or int(np.clip(4000 // batch, 7, 401))
    taken = {name: us / batch for name, us in medians_of(runs, query, repeats=repeats).items()}
    ratios = {f"x {name}": taken["fp32"] / taken[name] for name in ("fp16", "int8")}
    return {"batch": batch, **ratios, **taken}


def _query(made: Written, rng: np.random.Generator, batch: int, task: str) -> dict[str, Array]:
    hidden = rng.standard_normal((batch, made.model.hidden_size), dtype=np.float32)
    if task == "log_probs":
        return {"hidden": hidden}
    target = rng.integers(0, made.model.num_targets, batch)
    return {"hidden": hidden, "row": np.arange(batch), "target": target}


def _costs(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for name in PRECISIONS:
        with _written(options, name) as made:
            size = (made.directory / bundle.WEIGHTS).stat().st_size
            made.session(options.task)
            seconds, private = _load(made.directory / f"{options.task}.onnx")
        loaded = {"MB": size / 1e6, "load ms": seconds * 1e3, "private MB": private}
        rows.append({"precision": name, **loaded, **_error(name)})
    for row in rows:
        row["x bytes"] = row["MB"] / rows[0]["MB"]
    return rows


def _load(graph: Path) -> tuple[float, float]:
    """Seconds and private megabytes of a session, the second of its process."""
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, graph, graph], check=True, capture_output=True, text=True
    )
    seconds, private = map(float, done.stdout.split())
    return seconds, private


def _error(precision: bundle.Precision) -> dict[str, Any]:
    """Over the held-out positions of the language model."""
    heldout = np.load(_EXAMPLE / "heldout.npz")
    with tempfile.TemporaryDirectory() as directory:
        hidden = Path(directory) / "hidden.npy"
        np.save(hidden, heldout["hidden"])
        made = export_file(
            _EXAMPLE / "weights.npz",
            Path(directory) / "addresses",
            source="theano",
            fidelity=Fidelity(precision, hidden),
        )
        asked = {"row": np.arange(len(heldout["target"])), "target": heldout["target"]}
        session = open_session(made.file("target_log_prob.onnx"))
        log_prob = session.run(None, {"hidden": heldout["hidden"], **asked})[0]
    measured = made.manifest.accuracy[1]
    return {
        "perplexity": f"{np.exp(-log_prob.mean(dtype=np.float64)):.4f}",
        "max error": f"{measured.max_error:.1e}",
        "mean error": f"{measured.mean_error:.1e}",
        "KL": f"{max(0.0, measured.kl):.1e}",
        "top-1": f"{measured.top1_agreement:.2%}",
        "top-10": f"{measured.top10_agreement:.2%}",
    }


def _written(
    options: argparse.Namespace, precision: bundle.Precision
) -> AbstractContextManager[Written]:
    sizes = (options.clusters, options.block, options.hidden)
    return two_level(*sizes, jitter=options.jitter, precision=precision)


def _options() -> argparse.Namespace:
    parser = two_level_options(__doc__)
    tasks = ["target_log_prob", "log_probs"]
    parser.add_argument("--task", choices=tasks, default=tasks[0])
    parser.add_argument("--jitter", type=float, default=0.0, help="block sizes vary by this part")
    parser.add_argument("--batches", type=integers, default=[1, 8, 64, 256, 1024])
    parser.add_argument("--repeats", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
