"""Compares top_k of a Huffman tree, native kernel and graph, with fastText's own `predict`.

    python -m benchmarks.fasttext [--labels 300000] [--json FILE]

Both use one thread and run in turns. fastText gets a text of one known word, whose hidden vector
costs almost nothing; the graph gets that vector. The output matrix is random, scaled so that one
label has most of the probability ("peaked") or none has ("flat"). `x NAME` is NAME's time over
ours, the native kernel over float32. fastText drops labels with a
score below 1e-5 and may return fewer than k; the graph always returns exactly k.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import fasttext
import numpy as np

from hsoftmax import bundle
from hsoftmax.exporter.sources import SourceOptions, load

from .measure import medians, report
from .synthetic import WrittenModel, write

_HIDDEN = 100
_LOGIT_SCALES = {"peaked": 1.6, "flat": 0.02}
_BATCHES = (1, 64)
_PRECISIONS: tuple[bundle.Precision, ...] = ("fp32", "bf16", "int8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=int, default=300_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        rows = list(_rows(options.labels, Path(directory)))
    title = (
        f"fastText, loss hs, {options.labels:,} labels, hidden {_HIDDEN}, one thread, µs per row"
    )
    report(title, rows, options.json)


def _rows(labels: int, directory: Path) -> Iterator[Mapping[str, Any]]:
    model = _train(labels, directory)
    for name, scale in _LOGIT_SCALES.items():
        _randomise(model, scale)
        model.save_model(str(directory / "model.bin"))
        folder = directory / name
        folder.mkdir()
        loaded = load(directory / "model.bin", "fasttext", SourceOptions()).model
        written = {}
        for precision in _PRECISIONS:
            (folder / precision).mkdir()
            written[precision] = write(loaded, folder / precision, precision)
        for batch in _BATCHES:
            for k in (1, 10):
                yield _row(model, written, name, batch, k)


def _row(
    model: fasttext.FastText._FastText,
    written: Mapping[bundle.Precision, WrittenModel],
    name: str,
    batch: int,
    k: int,
) -> Mapping[str, Any]:
    texts = [f"w{i}" for i in range(batch)]
    hidden = np.array([model.get_sentence_vector(text) for text in texts], dtype=np.float32)
    top_k = written["fp32"].session("top_k")
    kernels = {precision: one.kernel("top_k") for precision, one in written.items()}
    feeds = {"hidden": hidden, "k": np.array([k]), "max_blocks": np.array([0])}
    runs: dict[str, Callable[[], object]] = {
        "fastText": lambda: model.predict(texts, k=k),
        "graph": lambda: top_k.run(None, feeds),
    }
    for precision, kernel in kernels.items():
        if kernel is not None:
            runs["ours" if precision == "fp32" else precision] = partial(kernel, feeds)
    runs.setdefault("ours", runs["graph"])
    times = medians(runs, repeats=7)
    returned = [len(labels) for labels in model.predict(texts, k=k)[0]]
    return {
        "distribution": name,
        "batch": batch,
        "k": k,
        **{f"x {name}": us / times["ours"] for name, us in times.items() if name != "ours"},
        **{name: us / batch for name, us in times.items()},
        "labels it returned": sum(returned) / batch,
    }


def _train(labels: int, directory: Path) -> "fasttext.FastText._FastText":
    """Train a model with so many labels of Zipf frequencies; its weights do not matter."""
    text = directory / "train.txt"
    with text.open("w") as file:
        for label in range(labels):
            repeats = 1 + labels // (50 * (label + 1))
            file.write(f"__label__{label} w{label % 64}\n" * repeats)
    return fasttext.train_supervised(
        str(text),
        loss="hs",
        dim=_HIDDEN,
        epoch=1,
        minCount=1,
        bucket=0,
        lr=1e-9,
        thread=12,
        verbose=0,
    )


def _randomise(model: "fasttext.FastText._FastText", scale: float) -> None:
    rng = np.random.default_rng(0)
    matrices = (model.get_input_matrix(), model.get_output_matrix())
    random_matrices = [rng.standard_normal(m.shape, dtype=np.float32) for m in matrices]
    model.set_matrices(random_matrices[0], random_matrices[1] * np.float32(scale))


if __name__ == "__main__":
    main()
