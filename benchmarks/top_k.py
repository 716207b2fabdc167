"""How fast are the k likeliest targets, against the full distribution and a TopK over it?

    python -m benchmarks.top_k --batches 1,8,32

Peaked rows are random rows of the weights' own scale times `--scales`; 0 is a flat row.
"""

import argparse
from collections.abc import Callable

import numpy as np
import onnxruntime
import spox
import spox.opset.ai.onnx.v21 as op
from spox import Tensor, argument

from hsoftmax.exporter.graphs import Lowered, tasks
from hsoftmax.exporter.graphs.log_probs import log_probs
from hsoftmax.exporter.graphs.weights import Weights

from .measure import medians, report
from .options import integers, sizes, two_level_options
from .synthetic import Written, two_level


def main() -> None:
    options = _options()
    with two_level(options.clusters, options.block, options.hidden) as made:
        ours = made.session("top_k", options.threads)
        dense = made.bound("full", full_top_k(made), options.threads)
        rows = [
            _measure(ours, dense, batch, scale, options)
            for batch in options.batches
            for scale in options.scales
        ]
    title = f"top_k: {sizes(options)}"
    report(f"{title}, k = {options.k}, {options.threads} threads, ms a batch", rows, options.json)


def _measure(
    ours: onnxruntime.InferenceSession,
    dense: onnxruntime.InferenceSession,
    batch: int,
    scale: float,
    options: argparse.Namespace,
) -> dict[str, object]:
    rng = np.random.default_rng(batch)
    drawn = rng.standard_normal((batch, options.hidden), dtype=np.float32)
    query = {"hidden": drawn * np.float32(scale), "max_blocks": np.array([0])}
    query["k"] = np.array([options.k])
    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: ours.run(None, query),
        "full": lambda: dense.run(None, {"hidden": query["hidden"], "k": query["k"]}),
    }
    taken = {name: us / 1e3 for name, us in medians(runs, repeats=options.repeats).items()}
    blocks = ours.run(["blocks"], query)[0]
    return {
        "batch": batch,
        "scale": scale,
        "x full": taken["full"] / taken["ours"],
        "blocks": float(blocks.mean()),
        **taken,
    }


def full_top_k(made: Written) -> Lowered:
    """The full distribution and TopK over it, as one graph."""
    weights = Weights(made.tensors)
    hidden = argument(Tensor(np.float32, ("batch", made.model.hidden_size)))
    k = argument(Tensor(np.int64, (1,)))
    log_prob, target = op.top_k(log_probs(made.model, weights, hidden)[0], k)
    inputs = {"hidden": hidden, "k": k, **weights.arguments}
    proto = spox.build(inputs, {"log_prob": log_prob, "target": target})
    return Lowered(tasks(made.model)["top_k"], proto, weights.views)


def _options() -> argparse.Namespace:
    parser = two_level_options(__doc__)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--batches", type=integers, default=[1, 32])
    parser.add_argument(
        "--scales", type=lambda t: [float(x) for x in t.split(",")], default=[0, 0.3, 1, 3]
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
