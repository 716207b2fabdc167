"""Counting models on the same targets: what the network must beat.

The bigram is interpolated Kneser-Ney (Kneser & Ney, 1995):

    p(w | v) = max(n(v, w) - D, 0) / n(v) + D n1(v) / n(v) * q(w)

where n1(v) counts the words seen after v, q(w) is the share of w among the kinds of bigram, and D
is the discount that does best on the validation split.
"""

import numpy as np
from scipy.sparse import csr_array

from clusters import Shape, bigram_counts
from corpus import Corpus

DISCOUNTS = np.linspace(0.05, 0.95, 19)


def unigram(stream: np.ndarray, n_targets: int) -> np.ndarray:
    """[N] the share of each target, one added to each count."""
    counts = np.bincount(stream, minlength=n_targets) + 1
    return counts / counts.sum()


def continuation(counts: csr_array) -> np.ndarray:
    """[N] the share of each target among the kinds of bigram, one added to each count."""
    kinds = np.bincount(counts.indices, minlength=counts.shape[1]) + 1
    return kinds / kinds.sum()


def interpolated(
    counts: csr_array, lower: np.ndarray, *, pairs: np.ndarray, discount: float
) -> np.ndarray:
    """[M] log p(second | first) of the pairs [2, M]."""
    first, second = pairs
    seen = np.maximum(counts.sum(axis=1), 1)[first]
    kinds = np.diff(counts.indptr)[first]
    kept = np.maximum(np.asarray(counts[first, second]).ravel() - discount, 0)
    share = np.where(kinds > 0, discount * kinds / seen, 1)
    return np.log(kept / seen + share * lower[second])


def perplexity(log_probs: np.ndarray) -> float:
    if not len(log_probs):
        raise ValueError(
            "perplexity: expected log p of some words, got none: the text is too short"
        )
    return float(np.exp(-log_probs.mean()))


def pairs_of(stream: np.ndarray) -> np.ndarray:
    """[2, M] each target but the last, over its successor."""
    return np.stack([stream[:-1], stream[1:]])


def best_discount(counts: csr_array, lower: np.ndarray, pairs: np.ndarray) -> float:
    losses = [-interpolated(counts, lower, pairs=pairs, discount=d).mean() for d in DISCOUNTS]
    return float(DISCOUNTS[int(np.argmin(losses))])


def test_unigram(corpus: Corpus) -> np.ndarray:
    """[M] log p of each test target after the first."""
    return np.log(unigram(corpus.train, len(corpus.words)))[corpus.test[1:]]


def test_bigram(corpus: Corpus) -> tuple[np.ndarray, float]:
    """[M] log p of each test target after the first, and the discount."""
    counts = bigram_counts(corpus.train, len(corpus.words))
    lower = continuation(counts)
    discount = best_discount(counts, lower, pairs_of(corpus.valid))
    return interpolated(counts, lower, pairs=pairs_of(corpus.test), discount=discount), discount


def cluster_perplexity(corpus: Corpus, shape: Shape) -> float:
    """Validation perplexity of p(cluster | previous word) p(word | cluster), both counted."""
    size, n_clusters = shape.cluster_size, shape.n_clusters
    counts = bigram_counts(corpus.train, shape.n_targets).tocoo()
    cells = (counts.row, counts.col // size)
    counts = csr_array((counts.data, cells), shape=(shape.n_targets, n_clusters))
    counts.sum_duplicates()
    word = unigram(corpus.train, shape.n_targets)
    cluster = np.bincount(np.arange(shape.n_targets) // size, weights=word)
    previous, target = pairs_of(corpus.valid)
    pairs = np.stack([previous, target // size])
    discount = best_discount(counts, cluster, pairs)
    log_cluster = interpolated(counts, cluster, pairs=pairs, discount=discount)
    return perplexity(log_cluster + np.log(word[target] / cluster[target // size]))
