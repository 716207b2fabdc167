"""Trains the language model and writes its softmax, held-out positions and figures.

python train.py --help
"""

import argparse
import copy
import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from artefacts import save_heldout, save_labels, save_weights
from baselines import cluster_perplexity, perplexity, test_bigram, test_unigram
from clusters import ORDERS, Shape, square_shape
from corpus import Corpus, read_corpus
from network import LanguageModel, losses_of
from torch import Tensor
from tqdm import tqdm

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


def read_arguments() -> tuple[Settings, int, Path]:
    parser = argparse.ArgumentParser(
        description="Train a two-level softmax language model on the presidential addresses."
    )
    for name, default in asdict(Settings()).items():
        choices = list(ORDERS) if name == "clusters" else None
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, type=type(default), default=default, choices=choices)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    values = vars(parser.parse_args())
    threads, out = values.pop("threads"), values.pop("out")
    return Settings(**values), threads, out


def start_log(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    handlers = [logging.FileHandler(out / "training.log", mode="w"), logging.StreamHandler()]
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers)


def windows(stream: Tensor, settings: Settings) -> Iterator[tuple[Tensor, Tensor]]:
    """Words read and words to predict, [steps, streams] each, in the order of the text."""
    rows = len(stream) // settings.streams
    columns = stream[: rows * settings.streams].view(settings.streams, rows).T.contiguous()
    for start in range(0, rows - 1, settings.steps):
        stop = min(start + settings.steps, rows - 1)
        yield columns[start:stop], columns[start + 1 : stop + 1]


def train_epoch(
    model: LanguageModel,
    optimiser: torch.optim.Optimizer,
    *,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    batches: list[tuple[Tensor, Tensor]],
    clip: float,
) -> float:
    """One pass; the perplexity as trained, dropout included."""
    model.train()
    state, total, count = None, 0.0, 0
    for words, targets in (bar := tqdm(batches, leave=False, mininterval=2)):
        hidden, state = model(words, state)
        state = (state[0].detach(), state[1].detach())
        loss = model.softmax(hidden.flatten(0, 1), targets.flatten()).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
        schedule.step()
        total, count = total + loss.item() * targets.numel(), count + targets.numel()
        bar.set_postfix(perplexity=f"{math.exp(total / count):.1f}", refresh=False)
    return math.exp(total / count)


def train(model: LanguageModel, corpus: Corpus, settings: Settings) -> list[dict[str, float]]:
    """Trains until the epochs or the patience run out; leaves the best weights in the model."""
    batches = list(windows(torch.from_numpy(corpus.train), settings))
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.epochs * len(batches))
    history: list[dict[str, float]] = []
    best, best_epoch, best_weights = math.inf, 0, {}
    for epoch in range(1, settings.epochs + 1):
        start = time.monotonic()
        rate = schedule.get_last_lr()[0]
        trained = train_epoch(
            model, optimiser, schedule=schedule, batches=batches, clip=settings.clip
        )
        valid = perplexity(-losses_of(model, corpus.valid)[1])
        seconds = time.monotonic() - start
        row = {"epoch": epoch, "learning_rate": rate, "train_perplexity": trained}
        history.append(row | {"valid_perplexity": valid, "seconds": round(seconds, 1)})
        log.info(
            "epoch %2d  rate %.5f  train %.2f  valid %.2f  %.0f s",
            epoch,
            rate,
            trained,
            valid,
            seconds,
        )
        if valid < best:
            best, best_epoch, best_weights = valid, epoch, copy.deepcopy(model.state_dict())
        elif epoch - best_epoch >= settings.patience:
            log.info("stopped early: no better for %d epochs", settings.patience)
            break
    model.load_state_dict(best_weights)
    return history


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


def main() -> None:
    settings, threads, out = read_arguments()
    start_log(out)
    torch.set_num_threads(threads)
    torch.manual_seed(settings.seed)
    corpus = read_corpus()
    shape = square_shape(len(corpus.words))
    sizes = sizes_of(corpus, shape)
    log.info("%s\n%s", settings, sizes)
    comparison = compare_clusters(corpus, shape, settings.seed)
    corpus = corpus.renumbered(ORDERS[settings.clusters](corpus, shape, settings.seed))
    model = LanguageModel(
        shape, hidden=settings.hidden, memory=settings.memory, dropout=settings.dropout
    )
    history = train(model, corpus, settings)

    save_labels(out, corpus)
    save_weights(out, model.softmax)
    hidden, network = losses_of(model, corpus.test)
    bigram, discount = test_bigram(corpus)
    log_probs = {"network": -network, "bigram": bigram, "unigram": test_unigram(corpus)}
    heldout = save_heldout(out, corpus, hidden=hidden, softmax=model.softmax, log_probs=log_probs)
    test = {name: perplexity(values) for name, values in log_probs.items()}
    log.info("test %s\nheldout %s", test, heldout)
    figures = {
        "settings": asdict(settings),
        "sizes": sizes,
        "torch": torch.__version__,
        "cluster_comparison_valid_perplexity": comparison,
        "epochs": history,
        "bigram_discount": discount,
        "test_perplexity": test,
    }
    (out / "training.json").write_text(json.dumps(figures | heldout, indent=2) + "\n")


if __name__ == "__main__":
    main()
