"""Profiles a target query by operator, with ONNX Runtime's own profiler.

    python -m benchmarks.profile --json profile.json

Microseconds are per row. "Slice" and "Gather" copy blocks, that is, read them; "MatMul" multiplies
them from cache; "between operators" is the time of loops and branches outside their operators.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime

from .measure import report
from .options import integers, two_level_options
from .synthetic import WrittenModel, session_options, two_level

_NUM_RUNS = 20
_LISTED_OPERATORS = ("Slice", "Gather", "MatMul", "Gemm", "LogSoftmax", "Add")
_CONTROL_FLOW = {"Loop", "Scan", "If"}  # their times include those of the operators inside


def main() -> None:
    options = _options()
    with two_level(options.clusters, options.block, options.hidden) as written:
        rows = [_measure(written, batch) for batch in options.batches]
    report("profile of a target query, us a row", rows, options.json)


def _measure(written: WrittenModel, batch: int) -> dict[str, object]:
    times = _profile(written, batch)
    total = times.pop("run")
    inside = sum(us for name, us in times.items() if name not in _CONTROL_FLOW)
    named = {name: times.get(name, 0.0) for name in _LISTED_OPERATORS}
    return {
        "batch": batch,
        "whole": total / batch,
        **{name: us / batch for name, us in named.items()},
        "other operators": (inside - sum(named.values())) / batch,
        "between operators": (total - inside) / batch,
    }


def _profile(written: WrittenModel, batch: int) -> dict[str, float]:
    """Return the mean microseconds of a whole run, and of each operator type in it."""
    written.session("target_log_prob")
    options = session_options(1)
    options.enable_profiling = True
    options.profile_file_prefix = str(written.directory / "profile")
    session = onnxruntime.InferenceSession(
        written.directory / "target_log_prob.onnx", options, providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((batch, written.model.hidden_size), dtype=np.float32)
    for _ in range(_NUM_RUNS):
        target = rng.integers(0, written.model.num_targets, batch)
        session.run(None, {"hidden": hidden, "row": np.arange(batch), "target": target})
    return _by_operator(Path(session.end_profiling()))


def _by_operator(profile: Path) -> dict[str, float]:
    times: Counter[str] = Counter()
    for event in json.loads(profile.read_text()):
        if event.get("name") == "model_run":
            times["run"] += event["dur"]
        elif event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["args"]["op_name"]] += event["dur"]
    return {name: us / _NUM_RUNS for name, us in times.items()}


def _options() -> argparse.Namespace:
    parser = two_level_options(__doc__)
    parser.add_argument("--batches", type=integers, default=[1, 8, 64, 256])
    return parser.parse_args()


if __name__ == "__main__":
    main()
