"""Times PyTorch eager; runs with a Python that has it (`pip install torch==2.13.0`).

    python -m benchmarks.target_log_prob --torch PYTHON

It gathers each target's block and multiplies them in one batch (gather + bmm). See `worker`: each
line is a number of rows, and the answer the microseconds of one call with new inputs.
"""

import argparse
import sys
import time

import torch
from torch import Tensor
from torch.nn.functional import linear, log_softmax


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


def microseconds(w: dict[str, Tensor], rows: int) -> float:
    clusters, block, hidden = w["w1"].shape
    x, target = torch.randn(rows, hidden), torch.randint(clusters * block, (rows,))
    started = time.perf_counter()
    two_level(w, x, target)
    return (time.perf_counter() - started) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--block", type=int, default=1000)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    w = weights(options.clusters, options.block, options.hidden)
    print("ready", flush=True)
    for line in sys.stdin:
        print(microseconds(w, int(line)), flush=True)


if __name__ == "__main__":
    main()
