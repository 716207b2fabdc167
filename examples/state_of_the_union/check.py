"""Reads the saved files alone, in NumPy: perplexity, sum to one, and the likeliest next words."""

import json
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
SHOWN = 10


def log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def log_distribution(hidden: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """[N] log p of every target after one hidden state [H], the empty slots masked."""
    cluster = log_softmax(hidden @ weights["W1"] + weights["b1"])
    scores = np.einsum("h,chk->ck", hidden, weights["W2"]) + weights["b2"]
    empty = np.arange(scores.size).reshape(scores.shape) >= weights["n_outputs"]
    joint = cluster[:, None] + log_softmax(np.where(empty, -np.inf, scores))
    return joint.ravel()[: weights["n_outputs"]]


def main() -> None:
    with np.load(FOLDER / "weights.npz") as saved:
        floats = {name: saved[name].astype(np.float64) for name in ("W1", "b1", "W2", "b2")}
        weights = floats | {"n_outputs": saved["n_outputs"]}
    with np.load(FOLDER / "heldout.npz") as saved:
        hidden, target = saved["hidden"].astype(np.float64), saved["target"]
    lines = [json.loads(x) for x in (FOLDER / "heldout.jsonl").read_text("utf-8").splitlines()]
    labels = (FOLDER / "labels.txt").read_text("utf-8").splitlines()
    expected = json.loads((FOLDER / "training.json").read_text("utf-8"))["heldout_perplexity"]

    assert len(set(labels)) == len(labels) == weights["n_outputs"]
    assert [line["next"] for line in lines] == [labels[t] for t in target]
    log_probs = np.empty(len(target))
    for row, (state, line) in enumerate(zip(hidden, lines, strict=True)):
        distribution = log_distribution(state, weights)
        np.testing.assert_allclose(np.exp(distribution).sum(), 1, rtol=1e-9)
        log_probs[row] = distribution[target[row]]
        if row % (len(target) // SHOWN) == 0:
            likeliest = [labels[t] for t in np.argsort(-distribution)[:5]]
            print(f"{line['context']} [{line['next']}]\n    {' '.join(likeliest)}")
    perplexity = np.exp(-log_probs.mean())
    np.testing.assert_allclose(perplexity, expected, rtol=1e-4)
    print(
        f"perplexity {perplexity:.4f} over {len(target)} positions, {expected:.4f} in training.json"
    )


if __name__ == "__main__":
    main()
