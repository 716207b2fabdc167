"""Compares the full distribution with a bare NumPy SGEMM of the same shape.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.log_probs --batches 1,8,32,128

"sgemm" writes into an existing array; "sgemm, new" allocates its result, as a service must.
"""

import argparse
from collections.abc import Callable

import numpy as np

from .measure import medians, report
from .options import integers, sizes, two_level_options
from .synthetic import WrittenModel, two_level


def main() -> None:
    options = _options()
    with two_level(
        options.clusters, options.block, options.hidden, jitter=options.jitter
    ) as written:
        rows = [_measure(written, batch, options) for batch in options.batches]
    title = f"log_probs: {sizes(options)}"
    report(f"{title}, {options.threads} threads, ms a batch", rows, options.json)


def _measure(written: WrittenModel, batch: int, options: argparse.Namespace) -> dict[str, object]:
    session = written.session("log_probs", options.threads)
    weight = written.model.levels[1].weight
    hidden = np.random.default_rng(batch).standard_normal((batch, options.hidden), np.float32)
    output = np.empty((batch, len(weight)), np.float32)
    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: session.run(None, {"hidden": hidden}),
        "sgemm": lambda: np.matmul(hidden, weight.T, out=output),
        "sgemm, new": lambda: hidden @ weight.T,
    }
    times = {name: us / 1e3 for name, us in medians(runs, repeats=options.repeats).items()}
    ratios = {f"x {name}": times[name] / times["ours"] for name in ("sgemm", "sgemm, new")}
    return {"batch": batch, **ratios, **times}


def _options() -> argparse.Namespace:
    parser = two_level_options(__doc__)
    parser.add_argument("--jitter", type=float, default=0.0, help="block sizes vary by this part")
    parser.add_argument("--batches", type=integers, default=[1, 8, 32, 128])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
