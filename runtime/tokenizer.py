"""Opens a bundle's `tokenizer.json` and turns texts into the inputs of its encoder.

The file is a list of words with rules, or that of Hugging Face's `tokenizers`, whose package is an
extra and is imported here when such a file is opened.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsoftmax.bundle import BundleError, Encoder, Port
from hsoftmax.models.errors import UserError

from .tokens import EncodedText, TextRow, Tokens, UnreadableText
from .word_tokenizer import read_word_tokenizer

MAX_TEXT_CHARS = 2**20  # of one row

_TYPE_IDS = "token_type_ids"  # the input of models that read pairs of texts


class TokenizerError(UserError):
    """The tokenizer does not fit the encoder, or cannot read a text."""


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer and the inputs that it fills.

    Attributes:
        tokens: what turns one row into ids
        ids_input: the input of token ids
        type_ids_input: the input `token_type_ids`, None where there is none
    """

    tokens: Tokens
    ids_input: str
    type_ids_input: str | None

    def inputs(self, rows: Sequence[TextRow]) -> dict[str, list[list[int]]]:
        """Return the inputs of rows, each a text or a list of words.

        Raises:
            TokenizerError: a text that is too long, without a token, or not Unicode.
        """
        encoded = [self._encode(number, row) for number, row in enumerate(rows)]
        inputs = {self.ids_input: [one.ids for one in encoded]}
        if self.type_ids_input is not None:
            inputs[self.type_ids_input] = [one.type_ids for one in encoded]
        return inputs

    def _encode(self, number: int, row: TextRow) -> EncodedText:
        chars = len(row) if isinstance(row, str) else sum(map(len, row))
        if chars > MAX_TEXT_CHARS:
            raise TokenizerError(
                f"inputs row {number}: expected at most {MAX_TEXT_CHARS} characters, got {chars}"
            )
        try:
            encoded = self.tokens.encode(row)
        except UnreadableText as error:
            raise TokenizerError(f"inputs row {number}: {error}") from None
        if not encoded.ids:
            raise TokenizerError(f"inputs row {number}: expected a text with a token, got none")
        return encoded


@dataclass(frozen=True)
class LibraryTokens:
    """A tokenizer of the package `tokenizers`."""

    library: Any  # tokenizers.Tokenizer, whose package may be absent

    def encode(self, row: TextRow) -> EncodedText:
        """Return the ids of a row; the words of a list are not split at spaces."""
        try:
            encoded = self.library.encode(row, is_pretokenized=not isinstance(row, str))
        except Exception:  # the library's, of any type
            raise UnreadableText("expected Unicode text, got other") from None
        return EncodedText(encoded.ids, encoded.type_ids)

    def last_token(self) -> tuple[str, int] | None:
        """Return the token with the largest id, added tokens included."""
        vocabulary: dict[str, int] = self.library.get_vocab(with_added_tokens=True)
        return max(vocabulary.items(), key=lambda entry: entry[1], default=None)


def open_tokenizer(path: Path, encoder: Encoder) -> Tokenizer:
    """Open the file of a tokenizer in front of the encoder.

    Raises:
        BundleError: the package is absent, or the file is no tokenizer.
        TokenizerError: the tokenizer does not fit the encoder.
    """
    tokenizer = Tokenizer(_read(path), *_inputs(encoder))
    _expect_known_ids(tokenizer, encoder)
    return tokenizer


def _read(path: Path) -> Tokens:
    try:
        content = path.read_text("utf-8")
    except UnicodeDecodeError:
        raise BundleError(f"{path}: expected a tokenizer.json in UTF-8, got other bytes") from None
    if not _is_list_of_words(content):
        return _read_library_tokens(path, content)
    try:
        return read_word_tokenizer(content)
    except ValueError as error:
        raise BundleError(f"{path}: expected a list of words, got: {str(error)[:200]}") from None


def _is_list_of_words(content: str) -> bool:
    """Return True for the kind `words`; the files of the library have no kind."""
    if '"kind"' not in content:
        return False
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(parsed, dict) and "kind" in parsed


def _read_library_tokens(path: Path, content: str) -> LibraryTokens:
    try:
        from tokenizers import Tokenizer as Library
    except ModuleNotFoundError:
        raise BundleError(
            f"{path}: expected the package tokenizers, which is not installed: "
            "pip install '.[tokenizers]'"
        ) from None
    try:
        library = Library.from_str(content)
        library.no_padding()  # the batches pad
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the library's Rust is no Exception
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BundleError(f"{path}: expected a tokenizer.json, got: {reason[:200]}") from None
    return LibraryTokens(library)


def _inputs(encoder: Encoder) -> tuple[str, str | None]:
    """Return the input of ids and that of the types of tokens, if there is one."""
    names = [port.name for port in encoder.row_inputs]
    ids = [port for port in encoder.row_inputs if port.name != _TYPE_IDS]
    if len(ids) != 1 or not _takes_ids(ids[0]):
        raise TokenizerError(
            "tokenizer: expected an encoder that reads the ids of tokens alone, "
            f"got the inputs {', '.join(names)}"
        )
    return ids[0].name, _TYPE_IDS if _TYPE_IDS in names else None


def _takes_ids(port: Port) -> bool:
    return port.dtype in {"int64", "int32"} and len(port.shape) == 2


def _expect_known_ids(tokenizer: Tokenizer, encoder: Encoder) -> None:
    """Raise TokenizerError if the tokenizer has an id that the encoder's table lacks."""
    num_ids, last = encoder.num_ids.get(tokenizer.ids_input), tokenizer.tokens.last_token()
    if last is None or num_ids is None:
        return
    token, largest = last
    if largest >= num_ids:
        raise TokenizerError(
            f"tokenizer: expected ids of at most {num_ids - 1}, as the encoder knows {num_ids}, "
            f"got {largest} for {token[:60]!r}"
        )
