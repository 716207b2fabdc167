"""Compares a target query with the textbook graph, NumPy, and only reading the blocks.

    python -m benchmarks.target_log_prob --batches 1,8,64,256,1024

"ours" is the native kernel on one thread, or the graph where there is none; "graph" is the portable
one. Each row has one target, uniform or drawn by Zipf's law (the t-th has a probability in
proportion to 1 / t, like words). "read" passes once over each distinct block of the batch; "numpy"
is one matrix-vector product per row, without copies. Microseconds are per row.
"""

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import onnxruntime

from hsoftmax.models.arrays import Array
from hsoftmax.runtime.native import Kernel

from . import textbook
from .measure import medians_with_inputs, report
from .options import integers, sizes, two_level_options
from .synthetic import WrittenModel, two_level

_MAX_TEXTBOOK_BYTES = 4 << 30  # it copies every block of the batch: larger batches are left out


def main() -> None:
    options = _options()
    with two_level(
        options.clusters, options.block, options.hidden, jitter=options.jitter
    ) as written:
        rows = [_measure(written, batch, options) for batch in options.batches]
    title = f"target_log_prob: {sizes(options)}"
    report(f"{title}, {options.threads} threads, us per row", rows, options.json)


def _measure(written: WrittenModel, batch: int, options: argparse.Namespace) -> dict[str, object]:
    rng = np.random.default_rng(batch)
    hidden = rng.standard_normal((batch, written.model.hidden_size), dtype=np.float32)
    draw_targets = partial(_TARGET_LAWS[options.law](rng), written.model.num_targets, batch)
    repeats = options.repeats or int(np.clip(2000 // batch, 5, 101))
    times = medians_with_inputs(
        _runs(written, hidden, options.threads), draw_targets, repeats=repeats
    )
    per_row = {name: us / batch for name, us in times.items()}
    ratios = {f"x {name}": us / per_row["ours"] for name, us in per_row.items() if name != "ours"}
    return {"batch": batch, "x textbook": "-", **ratios, "textbook": "-", **per_row}


def _runs(
    written: WrittenModel, hidden: Array, threads: int
) -> dict[str, Callable[[Array], object]]:
    """Return by name the functions that compute one target per row."""
    row = np.arange(len(hidden))

    def run_query(session: onnxruntime.InferenceSession, target: Array) -> object:
        return session.run(None, {"hidden": hidden, "row": row, "target": target})

    def run_kernel(kernel: Kernel, target: Array) -> object:
        return kernel({"hidden": hidden, "row": row, "target": target})

    runs = {"graph": partial(run_query, written.session("target_log_prob", threads))}
    kernel = written.kernel("target_log_prob", threads)
    runs["ours"] = runs["graph"] if kernel is None else partial(run_kernel, kernel)

    largest = int(written.model.levels[1].block_sizes.max())
    if hidden.nbytes * largest <= _MAX_TEXTBOOK_BYTES:
        textbook_session = written.open_graph(
            "textbook", textbook.target_log_prob(written), threads
        )
        runs["textbook"] = partial(run_query, textbook_session)
    runs["read"] = partial(read_blocks, written)
    runs["numpy"] = partial(multiply_blocks, written, hidden)
    return runs


def read_blocks(written: WrittenModel, target: Array) -> None:
    """Pass once over each distinct block; the maximum as integers is the fastest pass."""
    for number in np.unique(written.model.levels[1].block_of_row[target]):
        written.block(number).view(np.int32).max()


def multiply_blocks(written: WrittenModel, hidden: Array, target: Array) -> None:
    top, level = written.model.levels
    hidden @ top.weight.T
    for state, number in zip(hidden, level.block_of_row[target], strict=True):
        block = written.block(number)
        _ = state @ block if len(block) == len(state) else block @ state


def _uniform(rng: np.random.Generator) -> Callable[[int, int], Array]:
    return lambda targets, count: rng.integers(0, targets, count)


def _zipf(rng: np.random.Generator) -> Callable[[int, int], Array]:
    """Draw by inversion: the integral of 1 / t is log t."""
    return lambda targets, count: np.minimum(
        (targets + 1.0) ** rng.random(count) - 1, targets - 1
    ).astype(np.int64)


_TARGET_LAWS = {"uniform": _uniform, "zipf": _zipf}


def _options() -> argparse.Namespace:
    parser = two_level_options(__doc__)
    parser.add_argument("--jitter", type=float, default=0.0, help="block sizes vary by this part")
    parser.add_argument("--law", choices=list(_TARGET_LAWS), default="uniform")
    parser.add_argument("--batches", type=integers, default=[1, 2, 4, 8, 32, 64, 256, 1024, 4096])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
