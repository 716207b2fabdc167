"""Splits the text of a row into words, which are bytes of UTF-8.

A row is a text, or a list of its words. White space separates the words of a text: for fastText
space, tab, line feed, carriage return, vertical tab, form feed and NUL; for gensim the white space
of Python's `str.split`, as gensim's LineSentence uses it.
"""

from collections.abc import Sequence

from .errors import TextError
from .limits import MAX_TEXT_BYTES, MAX_WORDS

TextInput = str | Sequence[str]


def fasttext_words(row: TextInput) -> list[bytes]:
    """Return the words of a row as fastText reads them. Raises TextError, as `fasttext_line`."""
    return fasttext_line(row).replace(b"\0", b" ").split()


def fasttext_line(row: TextInput) -> bytes:
    """Return a row as one line in UTF-8; a list stands for its words with spaces between.

    Raises:
        TextError: the row is too long, or it has a line end, where fastText would stop reading.
    """
    content = _encode(row if isinstance(row, str) else " ".join(row))
    if (position := content.find(b"\n")) >= 0:
        raise TextError(
            f"expected one line, got a line end at byte {position}: send each line as a text of "
            "its own, or replace line ends by spaces"
        )
    return content


def gensim_words(row: TextInput) -> list[bytes]:
    """Return the words of a row as gensim reads them; the words of a list stay as they are.

    Raises:
        TextError: the row is too long.
    """
    words = row.split() if isinstance(row, str) else row
    if len(words) > MAX_WORDS:
        raise TextError(f"expected at most {MAX_WORDS} words, got {len(words)}")
    if sum(map(len, words)) > MAX_TEXT_BYTES:
        raise _too_long(sum(map(len, words)))
    encoded = [word.encode("utf-8", "surrogatepass") for word in words]
    if (size := sum(map(len, encoded))) > MAX_TEXT_BYTES:
        raise _too_long(size)
    return encoded


def _encode(text: str) -> bytes:
    if len(text) > MAX_TEXT_BYTES:  # encoding may take four times as many bytes
        raise _too_long(len(text))
    content = text.encode("utf-8", "surrogatepass")
    if len(content) > MAX_TEXT_BYTES:
        raise _too_long(len(content))
    return content


def _too_long(size: int) -> TextError:
    return TextError(
        f"expected a text of at most {MAX_TEXT_BYTES} bytes, got {size} or more: split it"
    )
