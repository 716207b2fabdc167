"""Truncated back-propagation through the text, with Adam, a cosine rate and early stopping."""

import copy
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from baselines import perplexity
from corpus import Corpus
from network import LanguageModel, losses_of

log = logging.getLogger("train")
Batches = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Recipe:
    streams: int
    steps: int
    epochs: int
    patience: int
    learning_rate: float
    clip: float


class Descent:
    """Adam on the weights of a model, its rate falling to nothing over the given steps."""

    def __init__(self, model: LanguageModel, recipe: Recipe, *, steps: int) -> None:
        self.weights = list(model.parameters())
        self.clip = recipe.clip
        self.adam = torch.optim.Adam(self.weights, lr=recipe.learning_rate, fused=True)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.adam, steps)

    @property
    def rate(self) -> float:
        return self.schedule.get_last_lr()[0]

    def step(self, loss: Tensor) -> None:
        self.adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, self.clip)
        self.adam.step()
        self.schedule.step()


class Best:
    """The weights of the epoch with the lowest validation perplexity."""

    def __init__(self) -> None:
        self.perplexity, self.epoch, self.weights = math.inf, 0, {}

    def offer(self, model: LanguageModel, row: dict[str, float]) -> None:
        if row["valid_perplexity"] < self.perplexity:
            self.perplexity, self.epoch = row["valid_perplexity"], row["epoch"]
            self.weights = copy.deepcopy(model.state_dict())


def windows(stream: np.ndarray, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    """Words read and words to predict, [steps, streams] each, in the order of the text."""
    rows = len(stream) // recipe.streams
    whole = torch.from_numpy(stream[: rows * recipe.streams])
    columns = whole.view(recipe.streams, rows).T.contiguous()
    for start in range(0, rows - 1, recipe.steps):
        stop = min(start + recipe.steps, rows - 1)
        yield columns[start:stop], columns[start + 1 : stop + 1]


def train_epoch(model: LanguageModel, descent: Descent, batches: Batches) -> float:
    """One pass; the perplexity as trained, dropout included."""
    model.train()
    state, total, count = None, 0.0, 0
    for words, targets in (bar := tqdm(batches, leave=False, mininterval=2)):
        hidden, state = model(words, state)
        state = (state[0].detach(), state[1].detach())
        loss = model.softmax(hidden.flatten(0, 1), targets.flatten()).mean()
        descent.step(loss)
        total, count = total + loss.item() * targets.numel(), count + targets.numel()
        bar.set_postfix(perplexity=f"{math.exp(total / count):.1f}", refresh=False)
    return math.exp(total / count)


def measured_epoch(
    model: LanguageModel, descent: Descent, *, batches: Batches, valid: np.ndarray
) -> dict[str, float]:
    """One pass and one validation, as a row of the history."""
    start, rate = time.monotonic(), descent.rate
    trained = train_epoch(model, descent, batches)
    return {
        "learning_rate": rate,
        "train_perplexity": trained,
        "valid_perplexity": perplexity(-losses_of(model, valid)[1]),
        "seconds": round(time.monotonic() - start, 1),
    }


def train(model: LanguageModel, corpus: Corpus, recipe: Recipe) -> list[dict[str, float]]:
    """Trains until the epochs or the patience run out; leaves the best weights in the model."""
    batches = list(windows(corpus.train, recipe))
    descent = Descent(model, recipe, steps=recipe.epochs * len(batches))
    history: list[dict[str, float]] = []
    best = Best()
    for epoch in range(1, recipe.epochs + 1):
        row = measured_epoch(model, descent, batches=batches, valid=corpus.valid)
        history.append({"epoch": epoch} | row)
        log.info("epoch %2d  rate %.5f  train %.2f  valid %.2f  %.0f s", *history[-1].values())
        best.offer(model, history[-1])
        if epoch - best.epoch >= recipe.patience:
            log.info("stopped early: no better for %d epochs", recipe.patience)
            break
    model.load_state_dict(best.weights)
    return history
