"""Trains the language model and writes its softmax, held-out positions and figures.

python train.py --help
"""

import argparse
import json
import logging
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch

from artefacts import save_heldout, save_labels, save_weights
from baselines import cluster_perplexity, perplexity, test_bigram, test_unigram
from clusters import ORDERS, Shape, square_shape
from corpus import Corpus, read_corpus
from learning import Recipe, train
from network import LanguageModel, losses_of

log = logging.getLogger("train")


@dataclass(frozen=True, slots=True)
class Settings:
    clusters: str = "context"
    seed: int = 1
    hidden: int = 128
    memory: int = 256
    dropout: float = 0.25
    streams: int = 32
    steps: int = 35
    epochs: int = 15
    patience: int = 2
    learning_rate: float = 2e-3
    clip: float = 1.0

    def recipe(self) -> Recipe:
        return Recipe(**{field.name: getattr(self, field.name) for field in fields(Recipe)})


def read_arguments() -> tuple[Settings, int, Path]:
    parser = argparse.ArgumentParser(
        description="Train a two-level softmax language model on the presidential addresses."
    )
    for name, default in asdict(Settings()).items():
        choices = list(ORDERS) if name == "clusters" else None
        option = "--" + name.replace("_", "-")
        parser.add_argument(
            option, type=type(default), default=default, choices=choices, help="default %(default)s"
        )
    parser.add_argument("--threads", type=int, default=1, help="threads of torch, default 1")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="default: here")
    values = vars(parser.parse_args())
    threads, out = values.pop("threads"), values.pop("out")
    return Settings(**values), threads, out


def start_log(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    handlers = [logging.FileHandler(out / "training.log", mode="w"), logging.StreamHandler()]
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers)


def compare_clusters(corpus: Corpus, shape: Shape, seed: int) -> dict[str, float]:
    """Validation perplexity of the counted cluster model, for each way to choose clusters."""
    figures = {}
    for name, order in ORDERS.items():
        figures[name] = cluster_perplexity(corpus.renumbered(order(corpus, shape, seed)), shape)
        log.info("clusters by %-9s counted model: valid %.2f", name, figures[name])
    return figures


def sizes_of(corpus: Corpus, shape: Shape) -> dict[str, int]:
    streams = {"train": corpus.train, "valid": corpus.valid, "test": corpus.test}
    return asdict(shape) | {f"{name}_tokens": len(stream) for name, stream in streams.items()}


def save(out: Path, model: LanguageModel, corpus: Corpus) -> dict[str, object]:
    """Writes the arrays and texts; returns the figures of the test split."""
    save_labels(out, corpus)
    save_weights(out, model.softmax)
    hidden, losses = losses_of(model, corpus.test)
    bigram, discount = test_bigram(corpus)
    log_probs = {"network": -losses, "bigram": bigram, "unigram": test_unigram(corpus)}
    heldout = save_heldout(out, corpus, hidden=hidden, softmax=model.softmax, log_probs=log_probs)
    test = {name: perplexity(values) for name, values in log_probs.items()}
    log.info("test %s\nheldout %s", test, heldout)
    return {"bigram_discount": discount, "test_perplexity": test} | heldout


def main() -> None:
    settings, threads, out = read_arguments()
    start_log(out)
    torch.set_num_threads(threads)
    torch.manual_seed(settings.seed)
    corpus = read_corpus()
    shape = square_shape(len(corpus.words))
    about = {"settings": asdict(settings), "sizes": sizes_of(corpus, shape)}
    log.info("%s\n%s", settings, about["sizes"])
    comparison = compare_clusters(corpus, shape, settings.seed)
    corpus = corpus.renumbered(ORDERS[settings.clusters](corpus, shape, settings.seed))
    model = LanguageModel(
        shape, hidden=settings.hidden, memory=settings.memory, dropout=settings.dropout
    )
    history = train(model, corpus, settings.recipe())
    about |= {"torch": torch.__version__, "cluster_comparison_valid_perplexity": comparison}
    figures = about | {"epochs": history} | save(out, model, corpus)
    (out / "training.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
