"""How fast is a target query? Against the textbook graph, NumPy, and merely reading the blocks.

    python -m benchmarks.target_log_prob --batches 1,8,64,256,1024

One target a row, uniform or drawn by Zipf's law (the t-th target with probability in proportion
to 1 / t, as words are). "read" passes once over each distinct block of the batch; "numpy" is one
matrix-vector product a row, without copies. Microseconds are per row.
"""

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import onnxruntime

from hsoftmax.models.arrays import Array

from . import textbook
from .measure import medians_of, report
from .options import integers, sizes, two_level_options
from .synthetic import Written, two_level

_TEXTBOOK_BYTES = 4 << 30  # it copies every block of the batch: larger ones are left out


def main() -> None:
    options = _options()
    with two_level(options.clusters, options.block, options.hidden, jitter=options.jitter) as made:
        rows = [_measure(made, batch, options) for batch in options.batches]
    title = f"target_log_prob: {sizes(options)}"
    report(f"{title}, {options.threads} threads, us per row", rows, options.json)


def _measure(made: Written, batch: int, options: argparse.Namespace) -> dict[str, object]:
    rng = np.random.default_rng(batch)
    hidden = rng.standard_normal((batch, made.model.hidden_size), dtype=np.float32)
    drawn = partial(_DRAWN[options.law](rng), made.model.num_targets, batch)
    repeats = options.repeats or int(np.clip(2000 // batch, 5, 101))
    taken = medians_of(_runs(made, hidden, options.threads), drawn, repeats=repeats)
    per_row = {name: us / batch for name, us in taken.items()}
    ratios = {f"x {name}": us / per_row["ours"] for name, us in per_row.items() if name != "ours"}
    return {"batch": batch, "x textbook": "-", **ratios, "textbook": "-", **per_row}


def _runs(made: Written, hidden: Array, threads: int) -> dict[str, Callable[[Array], object]]:
    """By name, what answers for a target of each row."""
    row = np.arange(len(hidden))

    def ask(session: onnxruntime.InferenceSession, target: Array) -> object:
        return session.run(None, {"hidden": hidden, "row": row, "target": target})

    runs = {"ours": partial(ask, made.session("target_log_prob", threads))}
    largest = int(made.model.levels[1].block_sizes.max())
    if hidden.nbytes * largest <= _TEXTBOOK_BYTES:
        book = made.bound("textbook", textbook.target_log_prob(made), threads)
        runs["textbook"] = partial(ask, book)
    runs["read"] = partial(read_blocks, made)
    runs["numpy"] = partial(multiply_blocks, made, hidden)
    return runs


def read_blocks(made: Written, target: Array) -> None:
    """Pass once over each distinct block: the largest of its bits as integers is quickest."""
    for number in np.unique(made.model.levels[1].block_of_row[target]):
        made.block(number).view(np.int32).max()


def multiply_blocks(made: Written, hidden: Array, target: Array) -> None:
    top, level = made.model.levels
    hidden @ top.weight.T
    for state, number in zip(hidden, level.block_of_row[target], strict=True):
        block = made.block(number)
        _ = state @ block if len(block) == len(state) else block @ state


def _uniform(rng: np.random.Generator) -> Callable[[int, int], Array]:
    return lambda targets, count: rng.integers(0, targets, count)


def _zipf(rng: np.random.Generator) -> Callable[[int, int], Array]:
    """By inversion: the integral of 1 / t is log t."""
    return lambda targets, count: np.minimum(
        (targets + 1.0) ** rng.random(count) - 1, targets - 1
    ).astype(np.int64)


_DRAWN = {"uniform": _uniform, "zipf": _zipf}


def _options() -> argparse.Namespace:
    parser = two_level_options(__doc__)
    parser.add_argument("--jitter", type=float, default=0.0, help="block sizes vary by this part")
    parser.add_argument("--law", choices=list(_DRAWN), default="uniform")
    parser.add_argument("--batches", type=integers, default=[1, 2, 4, 8, 32, 64, 256, 1024, 4096])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
