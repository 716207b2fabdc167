"""ICD-10-CM as a tree of four levels: chapter, block, category, code.

A target is a code: every category and all that is below it, since each of them may be assigned. The
category itself is the first target of its own block of codes.
"""

from dataclasses import dataclass

import numpy as np
import simple_icd_10_cm as icd
from numpy.typing import NDArray


@dataclass(frozen=True)
class Hierarchy:
    """Codes in tree order, and the tree as offsets.

    Attributes:
        chapters, blocks, categories: the inner nodes of levels 0, 1, 2
        codes: [N] the targets, the rows of level 3
        offsets: of each level, [rows of the level above + 1]
    """

    chapters: list[str]
    blocks: list[str]
    categories: list[str]
    codes: list[str]
    offsets: tuple[NDArray[np.int64], ...]


def read_hierarchy() -> Hierarchy:
    """The tree of the release that the package `simple-icd-10-cm` holds."""
    categories = _by_category()
    parents = {category: icd.get_parent(category) for category in categories}
    blocks = list(dict.fromkeys(parents.values()))
    chapters = list(dict.fromkeys(_chapter(block) for block in blocks))
    block_sizes = [sum(_chapter(block) == chapter for block in blocks) for chapter in chapters]
    category_sizes = [sum(parent == block for parent in parents.values()) for block in blocks]
    sizes = [[len(chapters)], block_sizes, category_sizes, [len(c) for c in categories.values()]]
    return Hierarchy(
        chapters=chapters,
        blocks=blocks,
        categories=list(categories),
        codes=[code for codes in categories.values() for code in codes],
        offsets=tuple(np.concatenate([[0], np.cumsum(level)]).astype(np.int64) for level in sizes),
    )


def _by_category() -> dict[str, list[str]]:
    """Codes under each category, in tree order, which keeps blocks and chapters together."""
    found: dict[str, list[str]] = {}
    for code in dict.fromkeys(icd.get_all_codes(True)):  # a block of one category shares its name
        if not icd.is_chapter(code) and "-" not in code:
            found.setdefault(code.partition(".")[0], []).append(code)
    return found


def _chapter(node: str) -> str:
    while not icd.is_chapter(node):
        node = icd.get_parent(node, prioritize_blocks=True)
    return node
