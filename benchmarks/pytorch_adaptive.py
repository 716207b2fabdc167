"""Times PyTorch's own adaptive softmax; runs with a Python that has PyTorch.

    python -m benchmarks.adaptive --torch PYTHON

It writes `module.pt` into `--directory`, and reads from there `hidden_64.npy` and `target_64.npy`
of a batch of 64 rows. See `worker`: a line such as `forward 64` is the call, and the answer its
microseconds.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

TorchSoftmax = torch.nn.AdaptiveLogSoftmaxWithLoss

CALLS: dict[str, Callable[[TorchSoftmax, Tensor, Tensor], object]] = {
    "forward": lambda module, hidden, target: module(hidden, target),
    "predict": lambda module, hidden, target: module.predict(hidden),
    "top10": lambda module, hidden, target: module.log_prob(hidden).topk(10),
    "log_prob": lambda module, hidden, target: module.log_prob(hidden),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--hidden", type=int, required=True)
    parser.add_argument("--targets", type=int, required=True)
    parser.add_argument("--cutoffs", type=int, nargs="+", required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = TorchSoftmax(options.hidden, options.targets, options.cutoffs)
    torch.save(module.state_dict(), options.directory / "module.pt")

    @cache
    def read(name: str) -> Tensor:
        return torch.from_numpy(np.load(options.directory / f"{name}.npy"))

    print("ready", flush=True)
    for line in sys.stdin:
        call, batch = line.split()
        hidden, target = read(f"hidden_{batch}"), read(f"target_{batch}")
        print(microseconds(lambda: CALLS[call](module, hidden, target)), flush=True)  # noqa: B023


@torch.no_grad()
def microseconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e6


if __name__ == "__main__":
    main()
