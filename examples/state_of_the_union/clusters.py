"""Groups words into clusters: words with similar neighbours are in one cluster.

Each word is a vector: the positive pointwise mutual information of the word with its left and
right neighbours, cut to a few dimensions by an SVD. Balanced two-means halves the words again and
again until each part is one cluster of K words; only the last may be smaller.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, diags_array, hstack
from scipy.sparse.linalg import svds

from corpus import Corpus

DIMENSIONS = 100
CONTEXT_POWER = 0.75  # lifts rare contexts, as in Levy, Goldberg & Dagan (2015)
ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Shape:
    """C clusters of K words for N targets: target t is word t % K of cluster t // K."""

    n_targets: int
    n_clusters: int
    cluster_size: int


def square_shape(n_targets: int) -> Shape:
    size = math.isqrt(n_targets - 1) + 1
    return Shape(n_targets, -(-n_targets // size), size)


def bigram_counts(stream: np.ndarray, n_targets: int) -> csr_array:
    """[N, N] how often the column follows the row."""
    ones = np.ones(len(stream) - 1)
    counts = csr_array((ones, (stream[:-1], stream[1:])), shape=(n_targets, n_targets))
    counts.sum_duplicates()
    return counts


def positive_mutual_information(counts: csr_array) -> csr_array:
    """max(0, log p(word, context) / (p(word) q(context))), q flattened by CONTEXT_POWER."""
    word = counts.sum(axis=1)
    context = counts.sum(axis=0) ** CONTEXT_POWER
    cells = counts.tocoo()
    expected = word[cells.row] * (context / context.sum())[cells.col]
    information = np.maximum(np.log(cells.data / expected), 0)
    return csr_array((information, (cells.row, cells.col)), shape=counts.shape)


def word_vectors(counts: csr_array, seed: int) -> np.ndarray:
    """[N, DIMENSIONS] unit vectors."""
    sides = [positive_mutual_information(side.tocsr()) for side in (counts, counts.T)]
    left, strength, _ = svds(hstack(sides).tocsr(), k=DIMENSIONS, rng=np.random.default_rng(seed))
    vectors = left @ diags_array(np.sqrt(strength)).toarray()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)


def halve(vectors: np.ndarray, take: int) -> tuple[np.ndarray, np.ndarray]:
    """Balanced two-means: the rows of the first part, `take` of them, and the others."""
    centred = vectors - vectors.mean(axis=0)
    score = centred @ np.linalg.eigh(centred.T @ centred)[1][:, -1]
    for _ in range(ROUNDS):
        order = np.argsort(score, kind="stable")
        first, second = order[:take], order[take:]
        score = vectors @ (vectors[second].mean(axis=0) - vectors[first].mean(axis=0))
    return first, second


def bisect(vectors: np.ndarray, targets: np.ndarray, shape: Shape) -> list[np.ndarray]:
    """The targets in clusters of K, neighbouring clusters alike."""
    clusters = -(-len(targets) // shape.cluster_size)
    if clusters == 1:
        return [targets]
    parts = halve(vectors[targets], clusters // 2 * shape.cluster_size)
    return [cluster for part in parts for cluster in bisect(vectors, targets[part], shape)]


def context_order(corpus: Corpus, shape: Shape, seed: int) -> np.ndarray:
    """[N] the old targets, cluster by cluster, the most frequent word of each first."""
    counts = bigram_counts(corpus.train, shape.n_targets)
    vectors = word_vectors(counts, seed)
    frequency = np.bincount(corpus.train, minlength=shape.n_targets)
    clusters = bisect(vectors, np.arange(shape.n_targets), shape)
    return np.concatenate([c[np.argsort(-frequency[c], kind="stable")] for c in clusters])


def frequency_order(corpus: Corpus, shape: Shape, seed: int) -> np.ndarray:
    """[N] the old targets, the most frequent first: for comparison."""
    frequency = np.bincount(corpus.train, minlength=shape.n_targets)
    return np.argsort(-frequency, kind="stable")


def random_order(corpus: Corpus, shape: Shape, seed: int) -> np.ndarray:
    """[N] the old targets, shuffled: for comparison."""
    return np.random.default_rng(seed).permutation(shape.n_targets)


ORDERS = {"context": context_order, "frequency": frequency_order, "random": random_order}
