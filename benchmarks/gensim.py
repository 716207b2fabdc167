"""Compares target_log_prob of a Huffman tree, native kernel and graph, with gensim's own `score`.

    python -m benchmarks.gensim [--words 20000] [--json FILE]

Both use one thread and run in turns. `score` sums log p over every (word, context) pair of a
sentence, from a table with an error of about 0.02 per step; the graph computes the same pairs
exactly. `x NAME` is NAME's time over ours, the native kernel over float32.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gensim.models import Word2Vec

from hsoftmax import bundle
from hsoftmax.exporter.sources import SourceOptions, load

from .measure import medians, report
from .synthetic import WrittenModel, write

_HIDDEN, _WINDOW, _LENGTH = 100, 5, 20
_SENTENCES = (1, 8, 64)
_PRECISIONS: tuple[bundle.Precision, ...] = ("fp32", "bf16", "int8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--words", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        model = _train(options.words)
        model.save(f"{directory}/words.model")
        loaded = load(Path(directory) / "words.model", "gensim", SourceOptions())
        written = {}
        for precision in _PRECISIONS:
            folder = Path(directory) / precision
            folder.mkdir()
            written[precision] = write(loaded.model, folder, precision)
        rows = list(_rows(model, written))
    words = len(model.wv)
    report(
        f"gensim, hs=1, {words:,} words, hidden {_HIDDEN}, one thread, µs per pair",
        rows,
        options.json,
    )


def _train(words: int) -> Word2Vec:
    model = Word2Vec(
        _sentences(words, 2 * words // _LENGTH), sg=1, hs=1, negative=0, window=_WINDOW,
        vector_size=_HIDDEN, min_count=1, epochs=1, workers=1,
    )  # fmt: skip
    return model


def _sentences(words: int, count: int) -> list[list[str]]:
    """Return sentences drawn by Zipf's law, followed by sentences with every word once."""
    rng = np.random.default_rng(0)
    random_words = np.minimum(rng.zipf(1.2, (count, _LENGTH)), words) - 1
    all_words = np.arange(words - words % _LENGTH).reshape(-1, _LENGTH)
    return [[f"w{word}" for word in row] for row in np.concatenate([random_words, all_words])]


def _rows(
    model: Word2Vec, written: Mapping[bundle.Precision, WrittenModel]
) -> Iterator[Mapping[str, Any]]:
    session = written["fp32"].session("target_log_prob")
    kernels = {precision: one.kernel("target_log_prob") for precision, one in written.items()}
    for count in _SENTENCES:
        sentences = _sentences(len(model.wv), count)[:count]
        feeds = _pairs(model, sentences)
        runs: dict[str, Callable[[], object]] = {
            "gensim": partial(model.score, sentences, total_sentences=count),
            "graph": partial(session.run, None, feeds),
        }
        for precision, kernel in kernels.items():
            if kernel is not None:
                runs["ours" if precision == "fp32" else precision] = partial(kernel, feeds)
        runs.setdefault("ours", runs["graph"])
        times = medians(runs, repeats=15)
        pairs = len(feeds["row"])
        yield {
            "sentences": count,
            "pairs": pairs,
            **{f"x {name}": us / times["ours"] for name, us in times.items() if name != "ours"},
            **{name: us / pairs for name, us in times.items()},
        }


def _pairs(model: Word2Vec, sentences: list[list[str]]) -> dict[str, np.ndarray]:
    """Return every word as a target with the vectors of the words around it."""
    index = [model.wv.key_to_index[word] for sentence in sentences for word in sentence]
    row, target = [], []
    for start in range(0, len(index), _LENGTH):
        for i in range(start, start + _LENGTH):
            for j in range(max(start, i - _WINDOW), min(start + _LENGTH, i + _WINDOW + 1)):
                if i != j:
                    row.append(j)
                    target.append(index[i])
    return {"hidden": model.wv.vectors[index], "row": np.array(row), "target": np.array(target)}


if __name__ == "__main__":
    main()
