"""Compares `hsoftmax score` of texts with `fasttext predict-prob`, features included.

    python -m benchmarks.score_text [--labels 300000] [--fasttext BINARY] [--json FILE]

Both read a file of texts and write the likeliest label and its probability of each, in one thread.
The time is that of the whole process, less that of a file of one text, which is the start. Without
a binary of fastText, its Python module predicts, with the same code in C++. The output matrix is
random, scaled so that one label has most of the probability ("peaked") or none has ("flat"). The
bars are 5 for flat models and 1 for peaked ones.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fasttext
import numpy as np

from hsoftmax.exporter import SourceOptions, export_file

from .measure import report

_HIDDEN = 100
_LOGIT_SCALES = {"peaked": 1.6, "flat": 0.02}
_BARS = {"peaked": 1.0, "flat": 5.0}
_KNOWN_WORDS = 64
_WORDS_PER_TEXT = 12
_REPEATS = 3
_PREDICT = """
import sys, fasttext
model = fasttext.load_model(sys.argv[1])
with open(sys.argv[2]) as texts, open(sys.argv[3], "w") as output:
    for labels, values in zip(*model.predict([line.rstrip("\\n") for line in texts], k=1)):
        output.writelines(f"{label} {value:g}\\n" for label, value in zip(labels, values))
"""


@dataclass(frozen=True)
class Files:
    """A model in both forms, and the texts of a measurement.

    Attributes:
        one: a file of one text
    """

    model: Path
    bundle: Path
    texts: Path
    one: Path


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        rows = list(_rows(options, Path(folder)))
    title = f"score of texts, fastText, loss hs, {options.labels:,} labels, one thread, µs a text"
    report(title, rows, options.json)


def _rows(options: argparse.Namespace, folder: Path) -> Iterator[Mapping[str, Any]]:
    model = _train(options.labels, folder)
    for name, scale in _LOGIT_SCALES.items():
        _randomise(model, scale)
        files = _files(model, folder / name, options.flat if name == "flat" else options.peaked)
        predict = partial(_predict, _predict_command(options.fasttext, files.model))
        score = partial(_score, [sys.executable, "-m", "hsoftmax", "score", str(files.bundle)])
        times: dict[str, list[float]] = {"theirs": [], "ours": []}
        for _ in range(_REPEATS):
            times["theirs"].append(_per_text(files, predict))
            times["ours"].append(_per_text(files, score))
        median = {who: float(np.median(some)) for who, some in times.items()}
        yield {
            "distribution": name,
            "texts": _count(files.texts),
            "fastText": median["theirs"],
            "ours": median["ours"],
            "fastText / ours": median["theirs"] / median["ours"],
            "bar": _BARS[name],
        }


def _per_text(files: Files, run: Callable[[Path], float]) -> float:
    """Return the microseconds of one text, without the start of the process.

    `run` returns the seconds that a file of texts takes.
    """
    start, whole = run(files.one), run(files.texts)
    return (whole - start) / (_count(files.texts) - _count(files.one)) * 1e6


def _score(command: Sequence[str], texts: Path) -> float:
    output = texts.with_name("ours.ndjson")
    output.unlink(missing_ok=True)
    options = ["--task", "top_k", "--k", "1", "--threads", "1"]
    return _seconds([*command, str(texts), str(output), *options])


def _predict(command: Sequence[str], texts: Path) -> float:
    output = texts.with_name("theirs.txt")
    if command[1] == "predict-prob":
        with output.open("w") as file:
            return _seconds([*command, str(texts), "1"], file)
    return _seconds([*command, str(texts), str(output)])


def _predict_command(binary: str | None, model: Path) -> list[str]:
    if binary is None:
        return [sys.executable, "-c", _PREDICT, str(model)]
    return [binary, "predict-prob", str(model)]


def _seconds(command: Sequence[str], stdout: Any = subprocess.DEVNULL) -> float:  # noqa: ANN401
    started = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, stdout=stdout, env=environment)
    return time.perf_counter() - started


def _count(texts: Path) -> int:
    with texts.open("rb") as file:
        return sum(1 for _ in file)


def _files(model: "fasttext.FastText._FastText", folder: Path, num_texts: int) -> Files:
    """Write the model, its bundle, and texts of known and unknown words."""
    folder.mkdir()
    model.save_model(str(folder / "model.bin"))
    options = SourceOptions(compat="fasttext")
    exported = export_file(
        folder / "model.bin", folder / "bundle", source="fasttext", options=options
    )
    rng = np.random.default_rng(1)
    words = rng.integers(0, 4 * _KNOWN_WORDS, (num_texts, _WORDS_PER_TEXT))
    lines = [" ".join(f"w{word}" for word in row) for row in words.tolist()]
    for name, some in (("texts", lines), ("one", lines[:1])):
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in some))
    return Files(folder / "model.bin", exported.path, folder / "texts.txt", folder / "one.txt")


def _train(labels: int, folder: Path) -> "fasttext.FastText._FastText":
    """Train a model with n-grams and so many labels of Zipf frequencies; weights do not matter."""
    text = folder / "train.txt"
    with text.open("w") as file:
        for label in range(labels):
            repeats = 1 + labels // (50 * (label + 1))
            file.write(f"__label__{label} w{label % _KNOWN_WORDS}\n" * repeats)
    return fasttext.train_supervised(
        str(text), loss="hs", dim=_HIDDEN, epoch=1, minCount=1, minn=2, maxn=4, bucket=50_000,
        lr=1e-9, thread=12, verbose=0,
    )  # fmt: skip


def _randomise(model: "fasttext.FastText._FastText", scale: float) -> None:
    """Draw the matrices; hidden vectors, means of many rows, get the length of a single row."""
    rng = np.random.default_rng(0)
    shapes = [model.get_input_matrix().shape, model.get_output_matrix().shape]
    rows, nodes = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)
    model.set_matrices(rows, nodes)
    text = " ".join(f"w{i}" for i in range(_WORDS_PER_TEXT))
    length = float(np.linalg.norm(model.get_sentence_vector(text)))
    model.set_matrices(rows * np.float32(_HIDDEN**0.5 / length), nodes * np.float32(scale))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--labels", type=int, default=300_000)
    parser.add_argument("--flat", type=int, default=2_000, help="texts of the flat model")
    parser.add_argument("--peaked", type=int, default=50_000, help="texts of the peaked model")
    parser.add_argument("--fasttext", metavar="BINARY", help="fastText's own command")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
