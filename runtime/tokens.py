"""The interface of a tokenizer of any kind: a text, or a list of words, becomes ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hsoftmax.models.errors import UserError

TextRow = str | Sequence[str]


class UnreadableText(UserError):
    """A tokenizer cannot read one row; the message does not name the row."""


@dataclass(frozen=True)
class EncodedText:
    """The ids of the tokens of one row, and the number of its part that each token is in."""

    ids: list[int]
    type_ids: list[int]


class Tokens(Protocol):
    """A tokenizer without its encoder. Several threads may call it."""

    def encode(self, row: TextRow) -> EncodedText:
        """Return the ids of a row. Raises UnreadableText."""

    def last_token(self) -> tuple[str, int] | None:
        """Return the token with the largest id, and that id; None without a vocabulary."""
