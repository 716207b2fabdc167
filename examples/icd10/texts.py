"""Descriptions to train on, other wordings to test on, and both as bags of hashed words."""

import re
from collections.abc import Sequence
from itertools import pairwise
from zlib import crc32

import numpy as np
import simple_icd_10_cm as icd
from numpy.typing import NDArray

BUCKETS = 1 << 15
LONGEST = 40  # words and pairs of words
NOTHING = BUCKETS  # fills a bag up


def descriptions(codes: Sequence[str]) -> list[str]:
    return [icd.get_description(code) for code in codes]


def other_wordings(codes: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Inclusion terms: how else a diagnosis of each code is put, and the target of each."""
    pairs = [
        (term, target)
        for target, code in enumerate(codes)
        for term in icd.get_inclusion_term(code)
        if term.lower() != icd.get_description(code).lower()
    ]
    return [term for term, _ in pairs], np.array([target for _, target in pairs], dtype=np.int64)


def bags(texts: Sequence[str]) -> NDArray[np.int64]:
    """[texts, LONGEST] buckets of the words and pairs of neighbouring words of each text."""
    made = np.full((len(texts), LONGEST), NOTHING, dtype=np.int64)
    for row, text in zip(made, texts, strict=True):
        words = re.findall(r"[a-z0-9]+", text.lower())
        terms = [*words, *(f"{a} {b}" for a, b in pairwise(words))][:LONGEST]
        row[: len(terms)] = [crc32(term.encode()) % BUCKETS for term in terms]
    return made
