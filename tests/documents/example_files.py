"""The files that a reader of each guide already has: trained models, text, labels, questions."""

import shutil
from pathlib import Path

import fasttext
import numpy as np
from gensim.models import Word2Vec
from safetensors.numpy import load_file, save_file

from hsoftmax import exporter
from tests.exporter.sources.test_torch_archive import Malicious, checkpoint, saved
from tests.service.conftest import LABELS, random_model

_ROOT = Path(__file__).parents[2]
_EXAMPLES = _ROOT / "examples"
_SAVED = _ROOT / "tests" / "exporter" / "sources" / "data"
_TOPICS = {
    "banking": (
        "my card was stolen", "transfer money to my account", "what is my balance",
        "the bank refused my card", "pay the invoice from my account",
    ),
    "travel": (
        "book a flight to paris", "cancel my hotel room", "the train was late",
        "a flight for two to rome", "is breakfast in the hotel",
    ),
    "weather": (
        "will it rain tomorrow", "how warm is it today", "snow in the mountains",
        "is it sunny at the coast", "rain and wind today",
    ),
    "music": (
        "play some jazz", "turn the volume up", "who sings this song", "play the next song",
        "stop the music",
    ),
}  # fmt: skip
_REPEATS = 20


def fasttext_files(folder: Path) -> None:
    """Training text, and a model with another loss."""
    lines = [f"__label__{topic} {text}" for topic, texts in _TOPICS.items() for text in texts]
    (folder / "train.txt").write_text("\n".join(lines * _REPEATS))
    options = {"dim": 4, "epoch": 1, "bucket": 10, "thread": 12, "verbose": 0}
    model = fasttext.train_supervised(str(folder / "train.txt"), loss="softmax", **options)
    model.save_model(str(folder / "softmax.bin"))


def gensim_files(folder: Path) -> None:
    """A model with negative sampling, and a file of vectors alone."""
    sentences = [text for texts in _TOPICS.values() for text in texts] * _REPEATS
    words = [sentence.split() for sentence in sentences]
    model = Word2Vec(words, hs=0, negative=5, vector_size=4, min_count=1, epochs=1, workers=1)
    model.save(str(folder / "negative.model"))
    model.wv.save(str(folder / "vectors.kv"))


class SharedVariable:
    """An array with the method of Theano's shared variables."""

    def __init__(self, value: np.ndarray) -> None:
        self._value = value

    def get_value(self) -> np.ndarray:
        return self._value


def theano_files(folder: Path) -> dict[str, object]:
    """The trained example; return the variables of the program that trained it."""
    example = _EXAMPLES / "state_of_the_union"
    for name in ("labels.txt", "question.json"):
        shutil.copy(example / name, folder)
    lines = (folder / "labels.txt").read_text().splitlines(keepends=True)
    (folder / "short.txt").write_text("".join(lines[:-1]))
    with np.load(example / "weights.npz") as arrays:
        weights = {name: arrays[name] for name in ("W1", "b1", "W2", "b2")}
    shapes = ((3, 2), (2,), (2, 3, 2), (2, 2))
    np.savez(folder / "unnamed.npz", *(np.ones(shape) for shape in shapes))
    variables = {name: SharedVariable(array) for name, array in weights.items()}
    return {**variables, "n_outputs": len(lines)}


def pytorch_files(folder: Path) -> None:
    """The trained example, small models of Transformer-XL and fairseq, and files to refuse."""
    example = _EXAMPLES / "adaptive_addresses"
    shutil.copytree(example, folder / "examples" / example.name)
    words = load_file(example / "model.safetensors")
    small = _softmax("pytorch_one_tail")
    both = small | {f"ema.{name}": array for name, array in small.items()}
    save_file(both, folder / "both.safetensors")
    transformer = _softmax("transformer_xl_div_1")
    (folder / "transfo-xl").mkdir()
    save_file(transformer, folder / "transfo-xl" / "model.safetensors")
    (folder / "transfo-xl" / "config.json").write_text('{"cutoffs": [6, 12, 18]}')
    checkpoint(folder, *saved(transformer)).rename(folder / "original.pt")
    checkpoint(folder, *saved(_softmax("fairseq_tied"))).rename(folder / "checkpoint.pt")
    checkpoint(folder, Malicious(folder / "run"), {}).rename(folder / "whole.pt")
    checkpoint(folder, *saved(words))  # model.pt, which the page writes where PyTorch is


def _softmax(name: str) -> dict[str, np.ndarray]:
    tensors = load_file(_SAVED / f"{name}.safetensors")
    return {name: array for name, array in tensors.items() if not name.startswith("answers.")}


def taxonomy_files(folder: Path) -> None:
    """A tree with a circle, and labels of too few nodes."""
    circle = {"weight": np.ones((3, 2), "f4"), "bias": np.zeros(3, "f4"), "parent": [-1, 2, 1]}
    np.savez(folder / "circle.npz", **circle)
    (folder / "short.txt").write_text("mammal\nbird\n")


def operate_files(folder: Path) -> None:
    """A repository with one version, and the weights of the next one."""
    (folder / "labels.txt").write_text("\n".join(LABELS))
    to = exporter.parse_destination(folder / "repository" / "words" / "1")
    exporter.export_model(random_model(1), to, labels=LABELS)
    rng = np.random.default_rng(2)
    shapes = {"W1": (8, 4), "b1": (4,), "W2": (4, 8, 3), "b2": (4, 3)}
    arrays = {name: rng.normal(size=shape).astype("f4") for name, shape in shapes.items()}
    np.savez(folder / "next.npz", **arrays, n_outputs=len(LABELS))
