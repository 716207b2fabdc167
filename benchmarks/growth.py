"""Measures how the cost of a target query grows with the number of targets, with two levels.

    python -m benchmarks.growth --json growth.json

The fitted exponent is the slope of log(cost) against log(N): one half for a path of two blocks of
sqrt(N) rows, one for a flat softmax.
"""

import argparse
from math import isqrt
from pathlib import Path

import numpy as np

from .measure import medians, report
from .options import integers
from .synthetic import two_level


def main() -> None:
    options = _options()
    rows = [_measure(isqrt(targets), options) for targets in options.targets]
    exponents = {f"exponent, {batch} rows": _exponent(rows, batch) for batch in options.batches}
    report("growth of a target query, us a row", rows, options.json)
    for name, exponent in exponents.items():
        print(f"{name}: {exponent:.2f}")


def _measure(side: int, options: argparse.Namespace) -> dict[str, object]:
    row: dict[str, object] = {"targets": side * side}
    with two_level(side, side, options.hidden) as written:
        session = written.session("target_log_prob", options.threads)
        rng = np.random.default_rng(0)
        for batch in options.batches:
            hidden = rng.standard_normal((batch, options.hidden), dtype=np.float32)

            def run_query(hidden: np.ndarray = hidden, batch: int = batch) -> None:
                target = rng.integers(0, side * side, batch)
                session.run(None, {"hidden": hidden, "row": np.arange(batch), "target": target})

            times = medians({"ours": run_query}, repeats=max(9, 600 // batch))
            row[f"{batch} rows"] = times["ours"] / batch
    return row


def _exponent(rows: list[dict[str, object]], batch: int) -> float:
    targets, cost = (
        np.array([float(str(row[c])) for row in rows]) for c in ("targets", f"{batch} rows")
    )
    return float(np.polyfit(np.log(targets), np.log(cost), 1)[0])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    for name, default in {
        "targets": [10_000, 40_000, 160_000, 640_000, 1_000_000, 4_000_000],
        "batches": [1, 64],
    }.items():
        parser.add_argument(f"--{name}", type=integers, default=default)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
