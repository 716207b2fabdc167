"""Measures the error of the float32 graphs against float64, on trained and synthetic weights.

    python -m benchmarks.accuracy

"trained" uses the held-out rows of the State of the Union model; "extreme" scales rows until the
largest logit is about ±1e4, and its error is relative to that logit.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from hsoftmax import exporter, models
from hsoftmax.models.arrays import Array, Float32

from .measure import report
from .synthetic import WrittenModel, two_level, write

_SAMPLE = Path(__file__).parent.parent / "examples" / "state_of_the_union"


def main() -> None:
    options = _options()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        loaded = exporter.sources.load(_SAMPLE / "weights.npz", "theano", exporter.SourceOptions())
        trained = write(loaded.model, Path(folder))
        hidden = np.load(_SAMPLE / "heldout.npz")["hidden"][:200]
        rows.append(_measure("trained, held-out rows", trained, hidden))
        rows.append(_measure("trained, extreme", trained, hidden, largest=1e4))
    with two_level(300, 300, 256) as written:
        random_rows = np.random.default_rng(0).standard_normal((32, 256), dtype=np.float32)
        rows.append(_measure("random, ordinary", written, random_rows, largest=10))
        rows.append(_measure("random, extreme", written, random_rows, largest=1e4))
    report("error in log p against float64", rows, options.json)


def _measure(
    name: str, written: WrittenModel, hidden: Float32, largest: float | None = None
) -> dict[str, object]:
    reference = models.reference(written.model)
    if largest is not None:
        hidden = hidden * np.float32(largest / reference.largest_logit(written.model, hidden))
    expected = reference.log_probs(written.model, hidden)
    (full,) = written.session("log_probs").run(None, {"hidden": hidden})
    row, target = np.divmod(np.arange(0, expected.size, 97), expected.shape[1])
    query = {"hidden": hidden, "row": row, "target": target}
    (pairs,) = written.session("target_log_prob").run(None, query)
    logit = reference.largest_logit(written.model, hidden)
    return {
        "rows": name,
        "largest logit": logit,
        "full, max error": _two_digits(np.abs(full - expected).max()),
        "pairs, max error": _two_digits(np.abs(pairs - expected[row, target]).max()),
        "relative to logit": _two_digits(np.abs(full - expected).max() / logit),
        "all finite": bool(np.isfinite(full).all()),
    }


def _two_digits(value: Array) -> str:
    return f"{float(value):.1e}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
