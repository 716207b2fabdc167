"""The files a trained model leaves, in the layout of Theano's h_softmax."""

import json
from pathlib import Path

import numpy as np
import torch

from baselines import perplexity
from corpus import Corpus
from network import TwoLevelSoftmax

HELDOUT = 2000
CONTEXT_WORDS = 20
HELDOUT_SEED = 2


def save_labels(out: Path, corpus: Corpus) -> None:
    (out / "labels.txt").write_text("".join(f"{word}\n" for word in corpus.words), "utf-8")


def save_weights(out: Path, softmax: TwoLevelSoftmax) -> None:
    """W1 [H, C], b1 [C], W2 [C, H, K], b2 [C, K]: the arguments of h_softmax."""
    arrays = {
        "W1": softmax.cluster_weight.T,
        "b1": softmax.cluster_bias,
        "W2": softmax.word_weight.transpose(1, 2),
        "b2": softmax.word_bias,
    }
    saved = {name: array.detach().contiguous().numpy() for name, array in arrays.items()}
    n_outputs = np.int64(softmax.shape.n_targets)
    np.savez_compressed(out / "weights.npz", **saved, n_outputs=n_outputs)


def heldout_positions(n_positions: int) -> np.ndarray:
    """[M] positions of the test stream, each with a full context before it."""
    generator = np.random.default_rng(HELDOUT_SEED)
    rows = generator.choice(n_positions - CONTEXT_WORDS, HELDOUT, replace=False)
    return np.sort(rows) + CONTEXT_WORDS


def save_heldout(
    out: Path,
    corpus: Corpus,
    *,
    hidden: np.ndarray,
    softmax: TwoLevelSoftmax,
    log_probs: dict[str, np.ndarray],
) -> dict[str, float | dict[str, float]]:
    """Writes a sample of test positions; returns the perplexities over exactly these."""
    rows = heldout_positions(len(hidden))
    chosen, target = hidden[rows], corpus.test[rows + 1]
    np.savez_compressed(out / "heldout.npz", hidden=chosen, target=target)
    with (out / "heldout.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            read = corpus.test[row + 1 - CONTEXT_WORDS : row + 1]
            context = " ".join(corpus.words[t] for t in read)
            line = {"context": context, "next": corpus.words[corpus.test[row + 1]]}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    with torch.no_grad():
        exact = softmax.double()(torch.from_numpy(chosen).double(), torch.from_numpy(target))
    sample = {name: perplexity(values[rows]) for name, values in log_probs.items()}
    return {"heldout_perplexity": perplexity(-exact.numpy()), "heldout_sample_perplexity": sample}
