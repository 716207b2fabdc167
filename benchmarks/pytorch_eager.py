"""Times PyTorch eager; runs with a Python that has it (`pip install torch==2.13.0`).

    python benchmarks/pytorch_eager.py --clusters 1000 --block 1000 --hidden 256

"two-level" gathers each target's block and multiplies them in one batch (gather + bmm); "flat" is a
Linear over all targets and a log_softmax. Prints JSON: {"two-level": {"1": us a row}, ...}.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import linear, log_softmax

MAX_FLAT_ROWS = 64  # larger batches take gigabytes and seconds


def weights(clusters: int, block: int, hidden: int) -> dict[str, Tensor]:
    torch.manual_seed(0)
    chunk = torch.randn(min(clusters * block * hidden, 1 << 22)) * 4 / hidden**0.5
    size = clusters * block * hidden
    inside = chunk.repeat(-(-size // len(chunk)))[:size].view(clusters, block, hidden)
    return {
        "w0": torch.randn(clusters, hidden) / hidden**0.5,
        "b0": torch.zeros(clusters),
        "w1": inside,
        "b1": torch.zeros(clusters, block),
    }


@torch.no_grad()
def two_level(w: dict[str, Tensor], hidden: Tensor, target: Tensor) -> Tensor:
    block = w["w1"].shape[1]
    cluster, position = target // block, target % block
    top = log_softmax(linear(hidden, w["w0"], w["b0"]), 1).gather(1, cluster[:, None])
    scores = torch.bmm(w["w1"][cluster], hidden[:, :, None])[:, :, 0] + w["b1"][cluster]
    return top + log_softmax(scores, 1).gather(1, position[:, None])


@torch.no_grad()
def flat(w: dict[str, Tensor], hidden: Tensor, target: Tensor) -> Tensor:
    scores = linear(hidden, w["w1"].flatten(0, 1), w["b1"].flatten())
    return log_softmax(scores, 1).gather(1, target[:, None])


def microseconds(
    compute: Callable[[dict[str, Tensor], Tensor, Tensor], Tensor],
    w: dict[str, Tensor],
    rows: int,
    seconds: float,
) -> float:
    clusters, block, hidden = w["w1"].shape
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < until:
        x, target = torch.randn(rows, hidden), torch.randint(clusters * block, (rows,))
        started = time.perf_counter()
        compute(w, x, target)
        times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2] / rows * 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--block", type=int, default=1000)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64, 256, 1024])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    w = weights(options.clusters, options.block, options.hidden)
    figures = {
        "two-level": {n: microseconds(two_level, w, n, options.seconds) for n in options.batches},
        "flat": {
            n: microseconds(flat, w, n, options.seconds)
            for n in options.batches
            if n <= MAX_FLAT_ROWS
        },
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
