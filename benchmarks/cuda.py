"""What does a GPU give: the graphs on CUDA beside the CPU, and beside PyTorch on the same GPU?

    python -m benchmarks.cuda

Arrays come from and go to the host, as in the service. Every task runs on CUDA here; in the service
only dense ones do (docs/decisions/0026). PyTorch is compared with if the environment has it.
"""

import argparse
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import onnxruntime

from hsoftmax.runtime.devices import CUDA, ON_CUDA
from hsoftmax.runtime.sessions import Feeds

from .measure import medians_of, report
from .options import integers, sizes, two_level_options
from .synthetic import Written, two_level

Run = Callable[[Feeds], object]

_TASKS = ("log_probs", "target_log_prob", "top_k")
_K = 10
_WHOLE = 128  # rows of a full distribution, at most


def main() -> None:
    options = _options()
    onnxruntime.preload_dlls()
    pytorch = import_module("benchmarks.pytorch_cuda") if find_spec("torch") else None
    with two_level(options.clusters, options.block, options.hidden) as made:
        peers = {} if pytorch is None else pytorch.runs(made)
        for task in options.tasks:
            peer = {"pytorch": peers[task]} if task in peers else {}
            runs = _runs(made, task, options.threads) | peer
            rows = [_measure(made, task, runs, batch, options) for batch in options.batches]
            title = f"{task}: {sizes(options)}, CPU with {options.threads} threads"
            report(f"{title}, us a batch", [row for row in rows if row], None)


def _measure(
    made: Written, task: str, runs: Mapping[str, Run], batch: int, options: argparse.Namespace
) -> dict[str, object]:
    if task == "log_probs" and batch > _WHOLE:
        return {}
    rng = np.random.default_rng(batch)
    taken = medians_of(runs, lambda: _feeds(made, task, rng, batch), repeats=options.repeats)
    ratios = {f"x {name}": taken[name] / taken["cuda"] for name in taken if name != "cuda"}
    return {"rows": batch, **ratios, **taken}


def _feeds(made: Written, task: str, rng: np.random.Generator, batch: int) -> Feeds:
    hidden = rng.standard_normal((batch, made.model.hidden_size), np.float32)
    match task:
        case "target_log_prob":
            target = rng.integers(0, made.model.num_targets, batch)
            return {"hidden": hidden, "row": np.arange(batch), "target": target}
        case "top_k":
            return {"hidden": hidden, "k": np.array([_K]), "max_blocks": np.array([0])}
        case _:
            return {"hidden": hidden}


def _runs(made: Written, task: str, threads: int) -> dict[str, Run]:
    sessions = {
        "cuda": made.session(task, threads, ON_CUDA.providers),
        "cpu": made.session(task, threads),
    }
    if (got := sessions["cuda"].get_providers()[0]) != CUDA:
        raise SystemExit(f"expected {CUDA}, got {got}")
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
