"""Bounds the shape of a JSON body before it is decoded, by counting its brackets and commas.

Decoding makes a Python object of every list and number, so 15 MB of `[],[],…` would stop the event
loop for a second. Counting them takes a few milliseconds. The endpoints call it.
"""

import re

from hsoftmax.models.sparse_block_dot import BlockSizes
from hsoftmax.service.errors import TooLarge
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.settings import Settings

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_OTHER_ELEMENTS = 64  # fields of a query beside its rows and targets


def check_body_shape(body: bytes, bundle: LoadedBundle, settings: Settings) -> None:
    """Check that a query within the limits could have so many lists and numbers.

    Raises:
        TooLarge: it has more.
    """
    max_lists, max_numbers = _max_lists_and_numbers(bundle, settings)
    if body.count(b"[") > max_lists or body.count(b",") > max_numbers:
        bare = _STRING.sub(b"", body)  # labels may contain both characters
        _check(bare.count(b"["), max_lists, "lists")
        _check(bare.count(b","), max_numbers, "numbers")


def _max_lists_and_numbers(bundle: LoadedBundle, settings: Settings) -> tuple[int, int]:
    rows = settings.max_rows
    if bundle.manifest.family == "SparseBlockDot":
        sizes = BlockSizes(**bundle.manifest.attributes)
        lists = rows * (sizes.input_blocks + 3)
        numbers = rows * (sizes.input_blocks * (sizes.input_size + 1) + sizes.output_blocks)
    else:
        lists = 2 * rows
        numbers = rows * (bundle.hidden_size + 1) + settings.max_targets
    return lists + _OTHER_ELEMENTS, numbers + _OTHER_ELEMENTS


def _check(count: int, limit: int, kind: str) -> None:
    if count > limit:
        raise TooLarge(f"body: expected at most {limit} {kind}, got {count}")
