"""Compares the graphs on CUDA with the CPU, and with PyTorch on the same GPU.

    python -m benchmarks.cuda

Arrays come from and go to the host, as in the service. All tasks run on CUDA here; in the service
only dense tasks do (docs/decisions/0026). PyTorch is included if it is installed.
"""

import argparse
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import onnxruntime

from hsoftmax.runtime.devices import CUDA, ON_CUDA
from hsoftmax.runtime.sessions import Feeds

from .measure import medians_with_inputs, report
from .options import integers, sizes, two_level_options
from .synthetic import WrittenModel, two_level

TimedRun = Callable[[Feeds], object]

_TASKS = ("log_probs", "target_log_prob", "top_k")
_K = 10
_MAX_FULL_ROWS = 128  # log_probs is not measured with more rows


def main() -> None:
    options = _options()
    onnxruntime.preload_dlls()
    pytorch = import_module("benchmarks.pytorch_cuda") if find_spec("torch") else None
    with two_level(options.clusters, options.block, options.hidden) as written:
        other_runs = {} if pytorch is None else pytorch.runs(written)
        for task in options.tasks:
            other_run = {"pytorch": other_runs[task]} if task in other_runs else {}
            runs = _runs(written, task, options.threads) | other_run
            rows = [_measure(written, task, runs, batch, options) for batch in options.batches]
            title = f"{task}: {sizes(options)}, CPU with {options.threads} threads"
            report(f"{title}, us a batch", [row for row in rows if row], None)


def _measure(
    written: WrittenModel,
    task: str,
    runs: Mapping[str, TimedRun],
    batch: int,
    options: argparse.Namespace,
) -> dict[str, object]:
    if task == "log_probs" and batch > _MAX_FULL_ROWS:
        return {}
    rng = np.random.default_rng(batch)
    times = medians_with_inputs(
        runs, lambda: _feeds(written, task, rng, batch), repeats=options.repeats
    )
    ratios = {f"x {name}": times[name] / times["cuda"] for name in times if name != "cuda"}
    return {"rows": batch, **ratios, **times}


def _feeds(written: WrittenModel, task: str, rng: np.random.Generator, batch: int) -> Feeds:
    hidden = rng.standard_normal((batch, written.model.hidden_size), np.float32)
    match task:
        case "target_log_prob":
            target = rng.integers(0, written.model.num_targets, batch)
            return {"hidden": hidden, "row": np.arange(batch), "target": target}
        case "top_k":
            return {"hidden": hidden, "k": np.array([_K]), "max_blocks": np.array([0])}
        case _:
            return {"hidden": hidden}


def _runs(written: WrittenModel, task: str, threads: int) -> dict[str, TimedRun]:
    sessions = {
        "cuda": written.session(task, threads, ON_CUDA.providers),
        "cpu": written.session(task, threads),
    }
    if (provider := sessions["cuda"].get_providers()[0]) != CUDA:
        raise SystemExit(f"expected {CUDA}, got {provider}")
    return {
        name: lambda feeds, session=session: session.run(None, feeds)
        for name, session in sessions.items()
    }


def _options() -> argparse.Namespace:
    parser = two_level_options(__doc__)
    parser.add_argument("--tasks", type=lambda names: names.split(","), default=_TASKS)
    parser.add_argument("--batches", type=integers, default=[1, 8, 32, 128, 1024, 4096])
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=20)
    return parser.parse_args()


if __name__ == "__main__":
    main()
