"""Compares an adaptive softmax, native kernels and graphs, with PyTorch's own module.

    python -m benchmarks.adaptive --torch PYTHON

`x NAME` is NAME's time over ours, the native kernel over float32. All use one thread and run in
turns; without `--torch`, an interpreter that has PyTorch, its columns are empty. The vocabulary and
the cutoffs are those of WikiText-103. Hidden states select rows of the head, most of them frequent
targets, so that the distributions are as peaked as those of a trained model. PyTorch's `forward`
computes the log-probability of one target a row, `log_prob` the full distribution, which has no
native kernel; it has no function that draws.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from hsoftmax import bundle
from hsoftmax.exporter.sources import SourceOptions, load
from hsoftmax.models import AdaptiveSoftmax, adaptive_softmax
from hsoftmax.models.adaptive_softmax import build_projected
from hsoftmax.models.arrays import Array, Float32, Int64
from hsoftmax.models.seeded_noise import noise
from hsoftmax.runtime.native import Kernel, has_kernel

from .measure import medians_of_turns, report, timed
from .options import integers
from .synthetic import WrittenModel, write
from .worker import Worker

_PRECISIONS: tuple[bundle.Precision, ...] = ("fp32", "bf16", "int8")
_DIVISOR = 4  # each tail is so many times as narrow as the one before, as PyTorch makes them
_SHARPNESS = 24.0  # logit of the row that a hidden state selects
# Name, task, and PyTorch's call.
_QUESTIONS = (
    ("forward (one target)", "target_log_prob", "forward"),
    ("predict (top 1)", "top_k", "predict"),
    ("top 10", "top_k", "top10"),
    ("sample", "sample", None),
    ("log_prob (all)", "log_probs", "log_prob"),
)
_OTHERS = ("torch", "graph", "bf16", "int8")

Feeds = Mapping[str, Array]
WrittenModels = Mapping[bundle.Precision, WrittenModel]


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        worker = _start_torch(options, directory)
        if worker is not None:
            stack.enter_context(worker)
        module = directory / "module.pt"
        model = _model(options)
        if worker is not None:  # the same weights, so that the same tails are opened
            model = load(module, "pytorch", SourceOptions()).model
        written = {p: write(model, _folder(directory, p), p) for p in _PRECISIONS}
        rows = [
            row
            for batch in options.batches
            for row in _rows(written, worker, directory, batch, options.repeats)
        ]
    title = f"adaptive softmax, {options.targets:,} targets, cutoffs {options.cutoffs}"
    report(f"{title}, {options.hidden} wide, one thread, ms a batch", rows, options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", type=int, default=267_735)
    parser.add_argument("--cutoffs", type=integers, default=[20_000, 40_000, 200_000])
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--batches", type=integers, default=[1, 8, 64, 256])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--torch", metavar="PYTHON", help="a Python with PyTorch")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _start_torch(options: argparse.Namespace, directory: Path) -> Worker | None:
    if options.torch is None:
        return None
    sizes = [f"--{name}={getattr(options, name)}" for name in ("hidden", "targets")]
    cutoffs = ["--cutoffs", *map(str, options.cutoffs)]
    return Worker(options.torch, "pytorch_adaptive", f"--directory={directory}", *sizes, *cutoffs)


def _folder(directory: Path, name: str) -> Path:
    folder = directory / name
    folder.mkdir()
    return folder


def _model(options: argparse.Namespace) -> AdaptiveSoftmax:
    """Build a model of the shapes of PyTorch's, with weights of the same spread."""
    rng = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> Float32:
        bound = 1 / np.sqrt(columns)
        return rng.uniform(-bound, bound, (rows, columns)).astype(np.float32)

    starts = options.cutoffs
    tail_sizes = np.diff([*starts, options.targets]).tolist()
    head = build_projected("head", matrix(starts[0] + len(starts), options.hidden))
    tails = []
    for i, rows in enumerate(tail_sizes):
        width = options.hidden // _DIVISOR ** (i + 1)
        projection = matrix(width, options.hidden)
        tails.append(build_projected(f"tail {i}", matrix(rows, width), projection=projection))
    return adaptive_softmax.build(head, tails)


def _rows(
    written: WrittenModels, worker: Worker | None, directory: Path, batch: int, repeats: int
) -> Iterator[dict[str, object]]:
    model = written["fp32"].model
    hidden, target = _hidden(model.head.weight, batch), _targets(model.num_targets, batch)
    np.save(directory / f"hidden_{batch}.npy", hidden)
    np.save(directory / f"target_{batch}.npy", target)
    for name, task, call in _QUESTIONS:
        feeds = _feeds(task, hidden, target, 1 if call == "predict" else 10)
        runs = {key: timed(run) for key, run in _runs(written, task, feeds).items()}
        if worker is not None and call is not None:
            runs["torch"] = lambda _, call=call: worker.microseconds(f"{call} {batch}")
        times = medians_of_turns(runs, lambda: None, repeats=repeats)
        ratios = {f"x {n}": times[n] / times["ours"] if n in times else "-" for n in _OTHERS}
        ms = {n: times[n] / 1e3 if n in times else "-" for n in ("ours", *_OTHERS)}
        yield {"question": name, "batch": batch, **ratios, **ms}


def _feeds(task: str, hidden: Float32, target: Int64, k: int) -> Feeds:
    batch = len(hidden)
    inputs: dict[str, Feeds] = {
        "target_log_prob": {"row": np.arange(batch), "target": target},
        "top_k": {"k": np.array([k]), "max_blocks": np.array([0])},
        "sample": {"noise": noise(0, batch, 10, 2)},
        "log_probs": {},
    }
    return {"hidden": hidden, **inputs[task]}


def _runs(written: WrittenModels, task: str, feeds: Feeds) -> dict[str, Callable[[None], object]]:
    session = written["fp32"].session(task)
    runs: dict[str, Callable[[None], object]] = {"graph": lambda _: session.run(None, feeds)}
    if has_kernel("AdaptiveSoftmax", task):
        for name, one in written.items():
            kernel = one.kernel(task)
            if kernel is not None:
                runs["ours" if name == "fp32" else name] = partial(_run_kernel, kernel, feeds)
    runs.setdefault("ours", runs["graph"])
    return runs


def _run_kernel(kernel: Kernel, feeds: Feeds, _: None) -> object:
    return kernel(feeds)


def _hidden(head: Float32, batch: int, seed: int = 0) -> Float32:
    """Return states that each select one row of the head, a target or a tail, by Zipf's law."""
    rng = np.random.default_rng(seed)
    directions = head[np.minimum(rng.zipf(1.2, batch), len(head)) - 1]
    random = rng.standard_normal(directions.shape, dtype=np.float32)
    return (
        _SHARPNESS * directions / (directions**2).sum(axis=1, keepdims=True)
        + np.float32(0.5) * random
    )


def _targets(num_targets: int, batch: int, seed: int = 1) -> Int64:
    """Return targets drawn by Zipf's law, as in text: most in the shortlist, some in every tail."""
    rng = np.random.default_rng(seed)
    return np.minimum(rng.zipf(1.2, batch), num_targets) - 1


if __name__ == "__main__":
    main()
