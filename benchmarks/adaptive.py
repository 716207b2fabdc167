"""Compares an adaptive softmax, native kernels and graphs, with PyTorch's own module.

    pip install torch==2.13.0 && python -m benchmarks.adaptive

All use one thread and run in turns; the best of several runs counts, in processor time, which other
processes disturb least. The vocabulary and the cutoffs are those of WikiText-103. Hidden states
select rows of the head, most of them frequent targets, so that the distributions are as peaked as
those of a trained model. PyTorch's `forward` computes the log-probability of one target a row,
`log_prob` the full distribution, which has no native kernel.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from hsoftmax.exporter.sources import SourceOptions, load
from hsoftmax.models.arrays import Float32, Int64

from .measure import report
from .synthetic import WrittenModel, write

_HIDDEN, _TARGETS, _CUTOFFS = 512, 267_735, [20_000, 40_000, 200_000]
_BATCHES = (1, 8, 64, 256)
_NUM_ROUNDS = 7
_SHARPNESS = 24.0  # logit of the row that a hidden state selects

TimedCall = Callable[[], object]
TorchSoftmax = torch.nn.AdaptiveLogSoftmaxWithLoss


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = TorchSoftmax(_HIDDEN, _TARGETS, _CUTOFFS)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        torch.save(module.state_dict(), path / "module.pt")
        written = write(load(path / "module.pt", "pytorch", SourceOptions()).model, path)
        rows = list(_rows(module, written))
    title = (
        f"adaptive softmax, {_TARGETS:,} targets, cutoffs {_CUTOFFS}, {_HIDDEN} wide, one thread"
    )
    report(f"{title}, PyTorch {torch.__version__}, ms a batch", rows, _options().json)


def _rows(module: TorchSoftmax, written: WrittenModel) -> Iterator[dict[str, object]]:
    for batch in _BATCHES:
        for name, theirs, graph, ours in _cases(module, written, batch):
            times = [seconds * 1e3 for seconds in _best_times(theirs, graph, ours)]
            yield {
                "question": name,
                "batch": batch,
                "PyTorch / ours": times[0] / times[2],
                "graph / ours": times[1] / times[2],
                "PyTorch": times[0],
                "graph": times[1],
                "ours": times[2],
            }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _cases(
    module: TorchSoftmax, written: WrittenModel, batch: int
) -> Iterator[tuple[str, TimedCall, TimedCall, TimedCall]]:
    hidden, target = _hidden(module, batch), _targets(batch)
    states, targets = torch.from_numpy(hidden), torch.from_numpy(target)
    sessions = {task: written.session(task) for task in ("target_log_prob", "log_probs", "top_k")}
    kernels = {task: written.kernel(task) for task in ("target_log_prob", "top_k")}
    pairs = {"hidden": hidden, "row": np.arange(batch), "target": target}
    one, ten = (
        {"hidden": hidden, "k": np.array([k]), "max_blocks": np.array([0])} for k in (1, 10)
    )

    def ours(task: str, feeds: dict[str, np.ndarray]) -> tuple[TimedCall, TimedCall]:
        kernel = kernels.get(task)
        graph: TimedCall = lambda: sessions[task].run(None, feeds)  # noqa: E731
        return graph, graph if kernel is None else lambda: kernel(feeds)

    yield "forward (one target)", lambda: module(states, targets), *ours("target_log_prob", pairs)
    yield "predict (top 1)", lambda: module.predict(states), *ours("top_k", one)
    yield "top 10", lambda: module.log_prob(states).topk(10), *ours("top_k", ten)
    yield "log_prob (all)", lambda: module.log_prob(states), *ours("log_probs", {"hidden": hidden})


def _hidden(module: TorchSoftmax, batch: int, seed: int = 0) -> Float32:
    """Return states that each select one row of the head, a target or a tail, by Zipf's law."""
    rng = np.random.default_rng(seed)
    weight = module.head.weight.detach().numpy()
    rows = np.minimum(rng.zipf(1.2, batch), len(weight)) - 1
    directions = weight[rows]
    noise = rng.standard_normal(directions.shape, dtype=np.float32)
    return (
        _SHARPNESS * directions / (directions**2).sum(axis=1, keepdims=True)
        + np.float32(0.5) * noise
    )


def _targets(batch: int, seed: int = 1) -> Int64:
    """Return targets drawn by Zipf's law, as in text: most in the shortlist, some in every tail."""
    rng = np.random.default_rng(seed)
    return np.minimum(rng.zipf(1.2, batch), _TARGETS) - 1


def _best_times(*runs: TimedCall) -> list[float]:
    """Return the best time of each call; taking turns spreads disturbances over all of them."""
    best = [float("inf")] * len(runs)
    with torch.no_grad():
        for _ in range(_NUM_ROUNDS):
            for i, run in enumerate(runs):
                started = time.process_time()
                run()
                best[i] = min(best[i], time.process_time() - started)
    return best


if __name__ == "__main__":
    main()
