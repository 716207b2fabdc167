"""Compares the precisions of stored weights: speed, bytes, loading, and error.

    python -m benchmarks.precision --batches 1,8,64,256,1024

Each row has one uniform target or, with `--task log_probs`, the full distribution; microseconds are
per row, with the graph and, where there is one, with the native kernel. Loading is the time and
private memory of a task's session in a new process. Errors and perplexity are those of the trained
language model, see examples/state_of_the_union, over its held-out positions.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from hsoftmax import bundle
from hsoftmax.exporter import PrecisionOptions, export_file
from hsoftmax.models.arrays import Array
from hsoftmax.runtime.native import has_kernel
from hsoftmax.runtime.sessions import open_session

from .measure import machine, medians_with_inputs, report
from .options import integers, sizes, two_level_options
from .synthetic import WrittenModel, two_level

Run = Callable[[Mapping[str, Array]], object]

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
        written = {name: stack.enter_context(_export(options, name)) for name in PRECISIONS}
        runs: dict[str, Run] = {
            name: partial(model.session(options.task).run, None) for name, model in written.items()
        }
        if has_kernel("HierarchicalSoftmax", options.task):
            kernels = {f"native {name}": m.kernel(options.task) for name, m in written.items()}
            runs |= {name: kernel for name, kernel in kernels.items() if kernel is not None}
        return [_measure(written["fp32"], runs, batch, options) for batch in options.batches]


def _measure(
    written: WrittenModel,
    runs: Mapping[str, Run],
    batch: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    query = partial(_query, written, np.random.default_rng(batch), batch, options.task)
    repeats = options.repeats or int(np.clip(4000 // batch, 7, 401))
    times = {
        name: us / batch for name, us in medians_with_inputs(runs, query, repeats=repeats).items()
    }
    ratios = {f"x {name}": times["fp32"] / times[name] for name in times if name != "fp32"}
    return {"batch": batch, **ratios, **times}


def _query(
    written: WrittenModel, rng: np.random.Generator, batch: int, task: str
) -> dict[str, Array]:
    hidden = rng.standard_normal((batch, written.model.hidden_size), dtype=np.float32)
    if task == "log_probs":
        return {"hidden": hidden}
    target = rng.integers(0, written.model.num_targets, batch)
    return {"hidden": hidden, "row": np.arange(batch), "target": target}


def _costs(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for name in PRECISIONS:
        with _export(options, name) as written:
            size = (written.directory / bundle.WEIGHTS).stat().st_size
            written.session(options.task)
            seconds, private = _load(written.directory / f"{options.task}.onnx")
        loaded = {"MB": size / 1e6, "load ms": seconds * 1e3, "private MB": private}
        rows.append({"precision": name, **loaded, **_error(name)})
    for row in rows:
        row["x bytes"] = row["MB"] / rows[0]["MB"]
    return rows


def _load(graph: Path) -> tuple[float, float]:
    """Return seconds and private megabytes of loading a session, the second one of its process."""
    process = subprocess.run(
        [sys.executable, "-c", _LOAD, graph, graph], check=True, capture_output=True, text=True
    )
    seconds, private = map(float, process.stdout.split())
    return seconds, private


def _error(precision: bundle.Precision) -> dict[str, Any]:
    """Return the errors and the perplexity over the language model's held-out positions."""
    heldout = np.load(_EXAMPLE / "heldout.npz")
    with tempfile.TemporaryDirectory() as directory:
        hidden = Path(directory) / "hidden.npy"
        np.save(hidden, heldout["hidden"])
        exported = export_file(
            _EXAMPLE / "weights.npz",
            Path(directory) / "addresses",
            source="theano",
            precision_options=PrecisionOptions(precision, hidden),
        )
        pairs = {"row": np.arange(len(heldout["target"])), "target": heldout["target"]}
        session = open_session(exported.file("target_log_prob.onnx"))
        log_prob = session.run(None, {"hidden": heldout["hidden"], **pairs})[0]
    measured = exported.manifest.accuracy[1]
    return {
        "perplexity": f"{np.exp(-log_prob.mean(dtype=np.float64)):.4f}",
        "max error": f"{measured.max_error:.1e}",
        "mean error": f"{measured.mean_error:.1e}",
        "KL": f"{max(0.0, measured.kl):.1e}",
        "top-1": f"{measured.top1_agreement:.2%}",
        "top-10": f"{measured.top10_agreement:.2%}",
    }


def _export(
    options: argparse.Namespace, precision: bundle.Precision
) -> AbstractContextManager[WrittenModel]:
    sizes = (options.clusters, options.block, options.hidden)
    return two_level(*sizes, jitter=options.jitter, precision=precision)


def _options() -> argparse.Namespace:
    parser = two_level_options(__doc__)
    task_specs = ["target_log_prob", "log_probs"]
    parser.add_argument("--task", choices=task_specs, default=task_specs[0])
    parser.add_argument("--jitter", type=float, default=0.0, help="block sizes vary by this part")
    parser.add_argument("--batches", type=integers, default=[1, 8, 64, 256, 1024])
    parser.add_argument("--repeats", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
