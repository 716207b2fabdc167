"""Compares top_k with the full distribution followed by a TopK.

    python -m benchmarks.top_k --batches 1,8,32

Hidden rows are random, multiplied by `--scales`; larger scales are more peaked, and 0 is flat.
"""

import argparse
from collections.abc import Callable

import numpy as np
import onnxruntime
import spox
import spox.opset.ai.onnx.v21 as op
from spox import Tensor, argument

from hsoftmax.exporter.graphs import LoweredGraph, task_specs
from hsoftmax.exporter.graphs.log_probs import log_probs
from hsoftmax.exporter.graphs.weights import Weights

from .measure import medians, report
from .options import integers, sizes, two_level_options
from .synthetic import WrittenModel, two_level


def main() -> None:
    options = _options()
    with two_level(options.clusters, options.block, options.hidden) as written:
        ours = written.session("top_k", options.threads)
        dense = written.open_graph("full", full_top_k(written), options.threads)
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
    random_rows = rng.standard_normal((batch, options.hidden), dtype=np.float32)
    query = {"hidden": random_rows * np.float32(scale), "max_blocks": np.array([0])}
    query["k"] = np.array([options.k])
    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: ours.run(None, query),
        "full": lambda: dense.run(None, {"hidden": query["hidden"], "k": query["k"]}),
    }
    times = {name: us / 1e3 for name, us in medians(runs, repeats=options.repeats).items()}
    blocks = ours.run(["blocks"], query)[0]
    return {
        "batch": batch,
        "scale": scale,
        "x full": times["full"] / times["ours"],
        "blocks": float(blocks.mean()),
        **times,
    }


def full_top_k(written: WrittenModel) -> LoweredGraph:
    """Build one graph of the full distribution followed by TopK."""
    weights = Weights(written.tensors)
    hidden = argument(Tensor(np.float32, ("batch", written.model.hidden_size)))
    k = argument(Tensor(np.int64, (1,)))
    log_prob, target = op.top_k(log_probs(written.model, weights, hidden)[0], k)
    inputs = {"hidden": hidden, "k": k, **weights.arguments}
    proto = spox.build(inputs, {"log_prob": log_prob, "target": target})
    return LoweredGraph(task_specs(written.model)["top_k"], proto, weights.views)


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
