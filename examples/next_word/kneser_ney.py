"""Modified Kneser-Ney: the best of the models that only count, so what a network must beat.

An n-gram is n words in a row. The model predicts its last word from the n - 1 before it, the
context. With c(context, w), how often word w followed the context in the training text,

    p(w | context) = (c(context, w) - D) / c(context) + gamma(context) p(w | shorter context)

Each count loses a discount D. The sum of what a context lost, gamma, goes to the same question with
the context shorter by its first word. After a context that the text does not have the shorter one
answers alone; the shortest of all gives every word the same probability. Two ideas make it good
(Kneser & Ney, 1995; Chen & Goodman, 1998):

* Shorter contexts count in how many different ways a word came, not how often. "francisco" is
  frequent, but only after "san", so it is not likely after a context that was never seen.
* D differs for counts of 1, of 2 and of 3 or more. The text itself says how large: D for a count of
  c is c - (c + 1) Y n[c + 1] / n[c], with Y = n[1] / (n[1] + 2 n[2]) and n[c] the number of n-grams
  that occur c times. A text too small for that, in which an n[c] is 0 or a D is not between 0 and
  c, gets D of 1/2, 1 and 3/2.
"""

from dataclasses import dataclass

import numpy as np

MAX_ORDER = 6
SMALL_TEXT_DISCOUNTS = (0.5, 1.0, 1.5)


@dataclass(frozen=True, slots=True)
class Order:
    """All n-grams of one length, in the order of their keys.

    Attributes:
        keys: [n-grams] number of the context times the number of words, plus the last word
        kept: [n-grams] count less discount, over the count of the context
        gamma: [contexts + 1] what a context gives to the shorter one; the last is for unseen ones
    """

    keys: np.ndarray
    kept: np.ndarray
    gamma: np.ndarray


def find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The place of each wanted key in the ascending keys, -1 where it is absent."""
    if not len(keys):
        return np.full(len(wanted), -1)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, places, -1)


def keys_of(stream: np.ndarray, shorter: np.ndarray, n_words: int) -> np.ndarray:
    """The key of the n-gram that ends at each position, -1 where its context is not known.

    `shorter` has the number of the (n - 1)-gram that ends at each position, -1 for none.
    """
    context = np.concatenate([[-1], shorter[:-1]])
    return np.where(context >= 0, context * n_words + stream, -1)


def discounts(counts: np.ndarray) -> np.ndarray:
    """[4] what a count of 0, 1, 2 and of 3 or more loses."""
    n = np.bincount(np.minimum(counts, 5), minlength=6)[:5].astype(float)
    return np.array([0.0, *(estimated(n) if n[1:4].all() else SMALL_TEXT_DISCOUNTS)])


def estimated(n: np.ndarray) -> tuple[float, ...]:
    """The discounts of 1, 2 and 3 or more that n[c], the n-grams of each count c, give."""
    y = n[1] / (n[1] + 2 * n[2])
    found = tuple(c - (c + 1) * y * n[c + 1] / n[c] for c in (1, 2, 3))
    in_range = all(0 < d <= c for c, d in enumerate(found, 1))
    return found if in_range else SMALL_TEXT_DISCOUNTS


def order_of(keys: np.ndarray, counts: np.ndarray, n_contexts: int, n_words: int) -> Order:
    """An order from its n-grams and how much each counts."""
    context = keys // n_words
    lost = discounts(counts)[np.minimum(counts, 3)]
    total = np.bincount(context, counts, n_contexts)
    divisor = np.maximum(total, 1)  # only the start of the text may have a context without a count
    gamma = np.bincount(context, lost, n_contexts) / divisor
    gamma[total == 0] = 1
    return Order(keys, (counts - lost) / divisor[context], np.append(gamma, 1.0))


def train(stream: np.ndarray, n_words: int, order: int) -> list[Order]:
    """The orders 1 to `order`, 2 or more. Only the longest one counts occurrences."""
    grams, counts, suffixes = [], [], []
    shorter = np.zeros(len(stream), dtype=np.int64)  # the 0-gram, the same everywhere
    for n in range(order):
        keys = keys_of(stream, shorter, n_words) if n else stream.astype(np.int64)
        unique, first, number, count = np.unique(
            keys, return_index=True, return_inverse=True, return_counts=True
        )
        if unique[0] < 0:  # the first positions have no context so long
            unique, first, number, count = unique[1:], first[1:], number - 1, count[1:]
        suffixes.append(shorter[first])  # the (n - 1)-gram at the end of each n-gram
        grams.append(unique)
        counts.append(count)
        shorter = number
    for n in range(order - 1):
        counts[n] = np.bincount(suffixes[n + 1], minlength=len(grams[n]))
    n_contexts = [1, *map(len, grams)]
    return [order_of(grams[n], counts[n], n_contexts[n], n_words) for n in range(order)]


def log_probs(orders: list[Order], stream: np.ndarray, n_words: int) -> np.ndarray:
    """[M] log p of each word of a stream but the first, from the words before it."""
    probs = np.full(len(stream), 1 / n_words)
    context = np.zeros(len(stream), dtype=np.int64)
    for order in orders:
        key = np.where(context >= 0, context * n_words + stream, -1)
        found = find(order.keys, key)
        kept = np.append(order.kept, 0.0)[found]  # the last is for unseen n-grams
        probs = kept + order.gamma[context] * probs
        context = np.concatenate([[-1], found[:-1]])
    return np.log(probs[1:])
