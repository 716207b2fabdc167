"""How fast is a target query? Against the textbook graph, NumPy, and merely reading the blocks.

    python -m benchmarks.target_log_prob --batches 1,8,64,256,1024

One target a row, uniform or drawn by Zipf's law (the t-th target with probability in proportion
to 1 / t, as words are). "read" passes once over each distinct block of the batch; "numpy" is one
matrix-vector product a row, without copies. Microseconds are per row.
"""

import argparse
from collections.abc import Callable

import numpy as np
import onnxruntime

from models.arrays import Array

from . import textbook
from .measure import medians, report
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
    runs = _runs(made, batch, options.threads, options.law)
    taken = medians(runs, repeats=options.repeats or int(np.clip(2000 // batch, 5, 101)))
    per_row = {name: us / batch for name, us in taken.items()}
    ratios = {f"x {name}": us / per_row["ours"] for name, us in per_row.items() if name != "ours"}
    return {"batch": batch, "x textbook": "-", **ratios, "textbook": "-", **per_row}


def _runs(made: Written, batch: int, threads: int, law: str) -> dict[str, Callable[[], object]]:
    rng = np.random.default_rng(batch)
    drawn = _DRAWN[law](rng)
    hidden = rng.standard_normal((batch, made.model.hidden_size), dtype=np.float32)

    def targets() -> Array:
        # Anew each time: no run may find its blocks in cache by another's doing.
        return drawn(made.model.num_targets, batch)

    def ask(session: onnxruntime.InferenceSession) -> object:
        query = {"hidden": hidden, "row": np.arange(batch), "target": targets()}
        return session.run(None, query)

    ours = made.session("target_log_prob", threads)
    runs: dict[str, Callable[[], object]] = {"ours": lambda: ask(ours)}
    largest = int(made.model.levels[1].block_sizes.max())
    if batch * largest * made.model.hidden_size * 4 <= _TEXTBOOK_BYTES:
        book = made.bound("textbook", textbook.target_log_prob(made), threads)
        runs["textbook"] = lambda: ask(book)
    runs["read"] = lambda: read_blocks(made, targets())
    runs["numpy"] = lambda: multiply_blocks(made, hidden, targets())
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
