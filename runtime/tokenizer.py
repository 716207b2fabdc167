"""Opens a bundle's `tokenizer.json` and turns texts into the inputs of its encoder.

The file is that of Hugging Face's `tokenizers`, whose package is an extra and is imported here when
a tokenizer is opened.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsoftmax.bundle import BundleError, Encoder, Port
from hsoftmax.models.errors import UserError

MAX_TEXT_CHARS = 2**20  # of one row

_TYPE_IDS = "token_type_ids"  # the input of models that read pairs of texts

TextRow = str | Sequence[str]


class TokenizerError(UserError):
    """The tokenizer does not fit the encoder, or cannot read a text."""


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer and the inputs that it fills.

    Attributes:
        tokens: the library's object
        ids_input: the input of token ids
        type_ids_input: the input `token_type_ids`, None where there is none
    """

    tokens: Any  # tokenizers.Tokenizer, whose package may be absent
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

    def _encode(self, number: int, row: TextRow) -> Any:  # noqa: ANN401
        chars = len(row) if isinstance(row, str) else sum(map(len, row))
        if chars > MAX_TEXT_CHARS:
            raise TokenizerError(
                f"inputs row {number}: expected at most {MAX_TEXT_CHARS} characters, got {chars}"
            )
        try:
            encoded = self.tokens.encode(row, is_pretokenized=not isinstance(row, str))
        except Exception:  # the library's, of any type
            raise TokenizerError(f"inputs row {number}: expected Unicode text, got other") from None
        if not encoded.ids:
            raise TokenizerError(f"inputs row {number}: expected a text with a token, got none")
        return encoded


def open_tokenizer(path: Path, encoder: Encoder) -> Tokenizer:
    """Open the file of a tokenizer in front of the encoder.

    Raises:
        BundleError: the package is absent, or the file is no tokenizer.
        TokenizerError: the tokenizer does not fit the encoder.
    """
    tokens = _read(path)
    tokens.no_padding()  # the batches pad
    tokenizer = Tokenizer(tokens, *_inputs(encoder))
    _expect_known_ids(tokenizer, encoder)
    return tokenizer


def _read(path: Path) -> Any:  # noqa: ANN401
    try:
        from tokenizers import Tokenizer as Tokens
    except ModuleNotFoundError:
        raise BundleError(
            f"{path}: expected the package tokenizers, which is not installed: "
            "pip install '.[tokenizers]'"
        ) from None
    try:
        return Tokens.from_str(path.read_text("utf-8"))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the library's Rust is no Exception
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BundleError(f"{path}: expected a tokenizer.json, got: {reason[:200]}") from None


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
    num_ids = encoder.num_ids.get(tokenizer.ids_input)
    vocabulary: dict[str, int] = tokenizer.tokens.get_vocab(with_added_tokens=True)
    if not vocabulary or num_ids is None:
        return
    token, largest = max(vocabulary.items(), key=lambda entry: entry[1])
    if largest >= num_ids:
        raise TokenizerError(
            f"tokenizer: expected ids of at most {num_ids - 1}, as the encoder knows {num_ids}, "
            f"got {largest} for {token[:60]!r}"
        )
