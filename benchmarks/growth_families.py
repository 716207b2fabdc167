"""Measures how the cost of a target query grows with N for binary trees and adaptive softmaxes.

    python -m benchmarks.growth_families

A Huffman tree over Zipf counts has paths of about log2(N) nodes; an adaptive softmax reads its head
and one tail. Targets are drawn by their frequency, 256 per query; microseconds are per pair.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hsoftmax.exporter.sources.fasttext_tree import huffman_paths
from hsoftmax.models import adaptive_softmax, huffman_softmax
from hsoftmax.models.projected import build_projected

from .measure import medians, report
from .options import integers
from .synthetic import WrittenModel, write

_HIDDEN, _PAIRS = 128, 256


def main() -> None:
    options = _options()
    rows = [row for targets in options.targets for row in _measure(targets)]
    report("growth of a target query by family, us a pair", rows, options.json)


def _measure(targets: int) -> Iterator[dict[str, object]]:
    rng = np.random.default_rng(0)
    counts = np.maximum(10 * targets // np.arange(1, targets + 1), 1)
    targets_drawn = rng.choice(targets, _PAIRS, p=counts / counts.sum())
    path, sign = huffman_paths(counts)
    nodes = rng.standard_normal((targets, _HIDDEN), dtype=np.float32)
    huffman = huffman_softmax.build(nodes, path, sign)
    yield _row(
        "Huffman", targets, float((sign[targets_drawn] != 0).sum(1).mean()), huffman, targets_drawn
    )
    sizes = [targets // 100, targets // 10]
    layers = [
        build_projected(name, rng.standard_normal((rows, _HIDDEN), dtype=np.float32))
        for name, rows in (("head", sizes[0] + 2), ("tail 0", sizes[1] - sizes[0]),
                           ("tail 1", targets - sizes[1]))
    ]  # fmt: skip
    adaptive = adaptive_softmax.build(layers[0], layers[1:])
    tails = [int(np.searchsorted(sizes, t, side="right")) for t in targets_drawn]
    rows_read = layers[0].num_rows + np.mean([0 if i == 0 else layers[i].num_rows for i in tails])
    yield _row("adaptive", targets, float(rows_read), adaptive, targets_drawn)


def _row(
    family: str,
    targets: int,
    path_rows: float,
    model: huffman_softmax.HuffmanSoftmax | adaptive_softmax.AdaptiveSoftmax,
    targets_drawn: np.ndarray,
) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        cost = _cost(write(model, Path(folder)), targets_drawn)
    return {"family": family, "targets": targets, "rows on a path": path_rows, "us a pair": cost,
            "ns a row of the path": cost / path_rows * 1e3}  # fmt: skip


def _cost(written: WrittenModel, targets_drawn: np.ndarray) -> float:
    session = written.session("target_log_prob")
    hidden = np.random.default_rng(1).standard_normal((_PAIRS, _HIDDEN), dtype=np.float32)
    query = {"hidden": hidden, "row": np.arange(_PAIRS), "target": targets_drawn}
    return medians({"ours": lambda: session.run(None, query)}, repeats=15)["ours"] / _PAIRS


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", type=integers, default=[1_000, 10_000, 100_000])
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
