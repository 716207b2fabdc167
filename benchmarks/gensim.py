"""gensim's hierarchical softmax: our per-target graph against its own `score`.

    python -m benchmarks.gensim [--words 20000] [--json FILE]

One thread each, in turns. `score` sums log p over every (word, context) pair of a sentence, from
a table that is right to about 0.02 a step; ours are the same pairs, exact.
"""

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gensim.models import Word2Vec

from hsoftmax.exporter.sources import Options, load

from .measure import medians, report
from .synthetic import Written, write

_HIDDEN, _WINDOW, _LENGTH = 100, 5, 20
_SENTENCES = (1, 8, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--words", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        model = _trained(chosen.words)
        model.save(f"{directory}/words.model")
        loaded = load(Path(directory) / "words.model", "gensim", Options())
        rows = list(_rows(model, write(loaded.model, Path(directory))))
    words = len(model.wv)
    report(
        f"gensim, hs=1, {words:,} words, hidden {_HIDDEN}, one thread, µs per pair",
        rows,
        chosen.json,
    )


def _trained(words: int) -> Word2Vec:
    model = Word2Vec(
        _sentences(words, 2 * words // _LENGTH), sg=1, hs=1, negative=0, window=_WINDOW,
        vector_size=_HIDDEN, min_count=1, epochs=1, workers=1,
    )  # fmt: skip
    return model


def _sentences(words: int, count: int) -> list[list[str]]:
    """By Zipf's law, every word once besides."""
    rng = np.random.default_rng(0)
    drawn = np.minimum(rng.zipf(1.2, (count, _LENGTH)), words) - 1
    every = np.arange(words - words % _LENGTH).reshape(-1, _LENGTH)
    return [[f"w{word}" for word in row] for row in np.concatenate([drawn, every])]


def _rows(model: Word2Vec, written: Written) -> Iterator[Mapping[str, Any]]:
    session = written.session("target_log_prob")
    for count in _SENTENCES:
        sentences = _sentences(len(model.wv), count)[:count]
        feeds = _pairs(model, sentences)
        times = medians(
            {
                "theirs": lambda s=sentences: model.score(s, total_sentences=len(s)),
                "ours": lambda f=feeds: session.run(None, f),
            },
            repeats=15,
        )
        pairs = len(feeds["row"])
        yield {
            "sentences": count,
            "pairs": pairs,
            "gensim": times["theirs"] / pairs,
            "ours": times["ours"] / pairs,
            "gensim / ours": times["theirs"] / times["ours"],
        }


def _pairs(model: Word2Vec, sentences: list[list[str]]) -> dict[str, np.ndarray]:
    """Every word with the vectors of the words around it."""
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
