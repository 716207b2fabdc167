"""Trains a language model with an adaptive softmax; writes its state, words and held-out positions.

    cd examples/adaptive_addresses
    PYTHONPATH=../state_of_the_union python train.py

Corpus, training loop and figures are those of the example beside it.
"""

import argparse
import json
import logging
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # this `network`, before the one of the example beside it

from baselines import perplexity  # noqa: E402
from corpus import Corpus, read_corpus  # noqa: E402
from learning import Recipe, train  # noqa: E402
from network import LanguageModel, float64_log_prob, losses_of  # noqa: E402

log = logging.getLogger("train")

CUTOFFS = [1000, 4000]
HELDOUT, HELDOUT_SEED = 500, 3


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train an adaptive softmax on the addresses.")
    parser.add_argument("--epochs", type=int, default=3, help="default %(default)s")
    parser.add_argument("--hidden", type=int, default=64, help="default %(default)s")
    parser.add_argument("--memory", type=int, default=128, help="default %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="of torch, default %(default)s")
    parser.add_argument("--out", type=Path, default=HERE, help="default: here")
    return parser.parse_args()


def save(out: Path, model: LanguageModel, corpus: Corpus) -> dict[str, float]:
    """Write state, words and a sample of test positions; returns the figures of the test split."""
    state = {f"softmax.{name}": t.contiguous() for name, t in model.softmax.state_dict().items()}
    save_file(state, out / "model.safetensors")
    (out / "labels.txt").write_text("".join(f"{word}\n" for word in corpus.words), "utf-8")
    hidden, losses = losses_of(model, corpus.test)
    rows = np.random.default_rng(HELDOUT_SEED).choice(len(hidden), HELDOUT, replace=False)
    chosen, target = hidden[rows], corpus.test[rows + 1]
    exact = float64_log_prob(model.softmax, torch.from_numpy(chosen), torch.from_numpy(target))
    log_prob = exact.numpy()
    np.savez_compressed(out / "heldout.npz", hidden=chosen, target=target, log_prob=log_prob)
    return {
        "test_perplexity": perplexity(-losses),
        "heldout_perplexity": perplexity(log_prob),
        "targets_in_the_shortlist": float((corpus.test < CUTOFFS[0]).mean()),
    }


def main() -> None:
    arguments = read_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    corpus = read_corpus()
    model = LanguageModel(
        len(corpus.words), CUTOFFS, hidden=arguments.hidden, memory=arguments.memory, dropout=0.1
    )
    recipe = Recipe(
        streams=64, steps=35, epochs=arguments.epochs, patience=2, learning_rate=4e-3, clip=1.0
    )
    history = train(model, corpus, recipe)
    figures = {
        "words": len(corpus.words),
        "cutoffs": CUTOFFS,
        "history": history,
        **save(arguments.out, model, corpus),
    }
    (arguments.out / "training.json").write_text(json.dumps(figures, indent=1) + "\n")
    log.info("test perplexity %.2f", figures["test_perplexity"])


if __name__ == "__main__":
    main()
