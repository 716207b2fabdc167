"""Bounds the shape of a JSON body before it is decoded, by counting its brackets, commas and texts.

Decoding makes a Python object of every list, number and text, so 15 MB of `[],[],…` would stop the
event loop for a second. Counting them takes a few milliseconds. The endpoints call it.
"""

import math
import re
from dataclasses import dataclass

from hsoftmax.bundle import Encoder
from hsoftmax.models.sparse_block_dot import BlockSizes
from hsoftmax.runtime.encoder_inputs import is_sequence
from hsoftmax.service.errors import TooLarge
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.settings import Settings

# A text and its end, or bytes up to the next text. No text of a query has thousands of escapes, and
# without that limit one match could take a quarter of a second.
_MAX_ESCAPES = 10_000
_PART = re.compile(
    rb'"(?:[^"\\]++|\\.){0,%d}+(?P<end>"|\\?\Z)?|(?P<rest>[^"]{1,65536}+)' % _MAX_ESCAPES, re.DOTALL
)
_FIRST_BYTES = 2**19  # they decide about most bodies that are made to take time
_OTHER_ELEMENTS = 64  # fields of a query beside its rows and targets
_TENSOR_ELEMENTS = 2048  # fields of tensors beside their data
_MAX_LISTED_WORDS = 2**17  # in the rows of a query; decoding them takes some ten milliseconds


@dataclass(slots=True)
class _Shape:
    """Counts of the elements of a body, or their limits."""

    lists: int = 0
    numbers: int = 0
    texts: int = 0


def check_body_shape(
    body: bytes, bundle: LoadedBundle, settings: Settings, *, as_tensors: bool = False
) -> None:
    """Check that a query within the limits could have so many lists, numbers and texts.

    A body `as_tensors` has more fields, and two numbers for each pair.

    Raises:
        TooLarge: it has more.
    """
    limits = _limits(bundle, settings)
    if as_tensors:
        limits.lists += _TENSOR_ELEMENTS
        limits.numbers += _TENSOR_ELEMENTS + settings.max_targets
        limits.texts += _TENSOR_ELEMENTS
    is_long = len(body) > _FIRST_BYTES
    if (is_long and _may_exceed(body, limits, _FIRST_BYTES)) or _may_exceed(
        body, limits, len(body)
    ):
        _check_parts(body, limits)  # texts may contain all three characters


def _may_exceed(body: bytes, limits: _Shape, end: int) -> bool:
    """Return True if the bytes up to `end` have more of the characters than the limits allow."""
    return (
        _has_more(body, b"[", limits.lists, end)
        or _has_more(body, b",", limits.numbers, end)
        or _has_more(body, b'"', 2 * limits.texts, end)
    )


def _has_more(body: bytes, character: bytes, limit: int, end: int) -> bool:
    """Return True if `character` stands more than `limit` times in the bytes up to `end`.

    Fewer bytes than the limit are not counted: that takes 7 microseconds for a row of 256 numbers.
    """
    return end > limit and body.count(character, 0, end) > limit


def _limits(bundle: LoadedBundle, settings: Settings) -> _Shape:
    rows = settings.max_rows
    if bundle.manifest.family == "SparseBlockDot":
        sizes = BlockSizes(**bundle.manifest.attributes)
        lists = rows * (sizes.input_blocks + 3)
        numbers = rows * (sizes.input_blocks * (sizes.input_size + 1) + sizes.output_blocks)
        texts = 0
    else:
        lists = 2 * rows
        numbers = rows * (bundle.hidden_size + 1) + settings.max_targets
        texts = settings.max_targets
        if bundle.encoder is not None:
            more = _encoder_limits(bundle.encoder.description, settings)
            lists, numbers = max(lists, more.lists), max(numbers, more.numbers)
        if bundle.takes_text:
            numbers, texts = numbers + _MAX_LISTED_WORDS, texts + rows + _MAX_LISTED_WORDS
    return _Shape(lists + _OTHER_ELEMENTS, numbers + _OTHER_ELEMENTS, texts + _OTHER_ELEMENTS)


def _encoder_limits(encoder: Encoder, settings: Settings) -> _Shape:
    """The most that rows of an encoder's inputs have within the limits."""
    rows, positions = settings.max_rows, settings.max_tokens
    limits = _Shape(numbers=settings.max_targets)
    for port in encoder.row_inputs:
        items = positions if is_sequence(port) else rows * math.prod(map(int, port.shape[1:2]))
        limits.lists += rows + 1 + (items if len(port.shape) > 2 else 0)
        limits.numbers += rows + items * (1 + math.prod(map(int, port.shape[2:])))
    return limits


def _check_parts(body: bytes, limits: _Shape) -> None:
    """Count outside texts, and stop at the first limit that is passed."""
    got = _Shape()
    for part in _PART.finditer(body):
        if part["rest"] is not None:
            got.lists += body.count(b"[", *part.span())
            got.numbers += body.count(b",", *part.span())
            _expect_at_most(got.lists, limits.lists, "lists")
            _expect_at_most(got.numbers, limits.numbers, "numbers")
        elif part["end"] is None:
            raise TooLarge(f"body: expected texts of at most {_MAX_ESCAPES} escapes, got more")
        else:
            got.texts += 1
            _expect_at_most(got.texts, limits.texts, "texts")


def _expect_at_most(count: int, limit: int, kind: str) -> None:
    if count > limit:
        raise TooLarge(f"body: expected at most {limit} {kind}, got {count}")
