"""Where does a target query spend its time? ONNX Runtime's own profile, by operator.

    python -m benchmarks.profile --json profile.json

Microseconds a row. "Slice" and "Gather" copy blocks, which is reading them; "MatMul" multiplies
them from cache; "between operators" is what loops and branches take besides those inside them.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime

from .measure import report
from .options import integers, two_level_options
from .synthetic import Written, session_options, two_level

_RUNS = 20
_NAMED = ("Slice", "Gather", "MatMul", "Gemm", "LogSoftmax", "Add")
_AROUND = {"Loop", "Scan", "If"}  # their times hold those of the operators inside them


def main() -> None:
    options = _options()
    with two_level(options.clusters, options.block, options.hidden) as made:
        rows = [_measure(made, batch) for batch in options.batches]
    report("profile of a target query, us a row", rows, options.json)


def _measure(made: Written, batch: int) -> dict[str, object]:
    spent = _profile(made, batch)
    whole = spent.pop("run")
    inside = sum(us for name, us in spent.items() if name not in _AROUND)
    named = {name: spent.get(name, 0.0) for name in _NAMED}
    return {
        "batch": batch,
        "whole": whole / batch,
        **{name: us / batch for name, us in named.items()},
        "other operators": (inside - sum(named.values())) / batch,
        "between operators": (whole - inside) / batch,
    }


def _profile(made: Written, batch: int) -> dict[str, float]:
    """Mean microseconds of a whole run, and of each kind of operator in it."""
    made.session("target_log_prob")
    options = session_options(1)
    options.enable_profiling = True
    options.profile_file_prefix = str(made.directory / "profile")
    session = onnxruntime.InferenceSession(
        made.directory / "target_log_prob.onnx", options, providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((batch, made.model.hidden_size), dtype=np.float32)
    for _ in range(_RUNS):
        target = rng.integers(0, made.model.num_targets, batch)
        session.run(None, {"hidden": hidden, "row": np.arange(batch), "target": target})
    return _by_operator(Path(session.end_profiling()))


def _by_operator(profile: Path) -> dict[str, float]:
    spent: Counter[str] = Counter()
    for event in json.loads(profile.read_text()):
        if event.get("name") == "model_run":
            spent["run"] += event["dur"]
        elif event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    return {name: us / _RUNS for name, us in spent.items()}


def _options() -> argparse.Namespace:
    parser = two_level_options(__doc__)
    parser.add_argument("--batches", type=integers, default=[1, 8, 64, 256])
    return parser.parse_args()


if __name__ == "__main__":
    main()
