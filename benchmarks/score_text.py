"""Compares `hsoftmax score` of texts with `fasttext predict-prob`, features included.

    python -m benchmarks.score_text [--labels 300000] [--fasttext BINARY] [--json FILE]

Both read a file of texts and write the likeliest label and its probability of each, in one thread.
The time is that of the whole process, less that of a file of one text, which is the start: by the
clock, and of the processor (user and system), which other work on the machine disturbs little. All
processes are pinned to one core and take turns. Without a binary of fastText, its Python module
predicts, with the same code in C++. The output matrix is random, scaled so that one label has most
of the probability ("peaked") or none has ("flat"). The bars are 5 for flat models and 1 for peaked
ones, by processor time.
"""

import argparse
import os
import resource
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
class Seconds:
    """The time of a process, or of a part of it."""

    clock: float
    processor: float

    def __sub__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.clock - other.clock, self.processor - other.processor)


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
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # children inherit it
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
        theirs, ours = [], []
        for _ in range(_REPEATS):
            theirs.append(_without_start(files, predict))
            ours.append(_without_start(files, score))
        more_texts = _count(files.texts) - _count(files.one)
        yield {
            "distribution": name,
            "texts": _count(files.texts),
            **_compared("processor", [s.processor for s in theirs], [s.processor for s in ours],
                        more_texts),
            **_compared("clock", [s.clock for s in theirs], [s.clock for s in ours], more_texts),
            "bar": _BARS[name],
        }  # fmt: skip


def _compared(
    kind: str, theirs: Sequence[float], ours: Sequence[float], texts: int
) -> dict[str, float]:
    """Return the median microseconds of one text of both, and their ratio."""
    their_time, our_time = (float(np.median(some)) / texts * 1e6 for some in (theirs, ours))
    return {
        f"fastText, {kind}": their_time,
        f"ours, {kind}": our_time,
        f"fastText / ours, {kind}": their_time / our_time,
    }


def _without_start(files: Files, run: Callable[[Path], Seconds]) -> Seconds:
    """Return the time of the texts after the first, without the start of the process."""
    start = run(files.one)
    return run(files.texts) - start


def _score(command: Sequence[str], texts: Path) -> Seconds:
    output = texts.with_name("ours.ndjson")
    output.unlink(missing_ok=True)
    options = ["--task", "top_k", "--k", "1", "--threads", "1"]
    return _seconds([*command, str(texts), str(output), *options])


def _predict(command: Sequence[str], texts: Path) -> Seconds:
    output = texts.with_name("theirs.txt")
    if command[1] == "predict-prob":
        with output.open("w") as file:
            return _seconds([*command, str(texts), "1"], file)
    return _seconds([*command, str(texts), str(output)])


def _predict_command(binary: str | None, model: Path) -> list[str]:
    if binary is None:
        return [sys.executable, "-c", _PREDICT, str(model)]
    return [binary, "predict-prob", str(model)]


def _seconds(command: Sequence[str], stdout: Any = subprocess.DEVNULL) -> Seconds:  # noqa: ANN401
    """Run a command, and return its time."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    before, started = _processor_of_children(), time.perf_counter()
    subprocess.run(command, check=True, stdout=stdout, env=environment)
    return Seconds(time.perf_counter() - started, _processor_of_children() - before)


def _processor_of_children() -> float:
    """Return the processor seconds of all processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


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
