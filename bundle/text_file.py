"""Reads text files: the one place that decodes a label file, a key file or a configuration.

Text is UTF-8. A byte order mark at its start is dropped, as Windows programs write one. Lines end
with `\\n` or `\\r\\n`. Other encodings are refused, because a guess could give wrong labels or keys
without an error.
"""

import codecs
from pathlib import Path

from hsoftmax.models import UserError

UTF8_MARK = codecs.BOM_UTF8  # the byte order mark of UTF-8
# UTF-32 comes first: the mark of UTF-16-LE is the start of the mark of UTF-32-LE.
_OTHER_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
    (b"\x1f\x8b", "gzip data"),
    (b"\x28\xb5\x2f\xfd", "zstd data"),
    (b"PK\x03\x04", "a zip archive"),
)
_ZEROS = {"x000": "UTF-32", "000x": "UTF-32", "x0x0": "UTF-16", "0x0x": "UTF-16"}
_NEXT_STEP = "save it as UTF-8"
_NEXT_STEPS = {
    "gzip data": "decompress it first",
    "zstd data": "decompress it first",
    "a zip archive": "unpack it first",
}


class TextFileError(UserError):
    """The file is not UTF-8 text."""


def read_lines(path: Path, name: str) -> list[str]:
    """Return the lines of a text file without their ends. `name` stands for it in the error.

    Raises:
        TextFileError: the file is not UTF-8, or has other line ends.
        OSError: the file cannot be read.
    """
    return _split_lines(decode_text(path.read_bytes(), name), name)


def decode_text(content: bytes, name: str) -> str:
    """Return the text without its byte order mark. `name` stands for it in the error.

    Raises:
        TextFileError: the content is not UTF-8.
    """
    if other := other_encoding(content):
        raise TextFileError(f"{name}: expected UTF-8 text, got {other}")
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise TextFileError(
            f"{name}: expected UTF-8 text, got byte {error.start} that is not, perhaps of Latin-1 "
            f"or Windows-1252: {_NEXT_STEP}"
        ) from None


def other_encoding(content: bytes) -> str | None:
    """Return what content looks like that is surely not UTF-8 text, and the next step; else None.

    The first bytes decide: a mark, or the zeros that UTF-16 and UTF-32 have beside ASCII.
    """
    kind = next((kind for mark, kind in _OTHER_MARKS if content.startswith(mark)), None)
    kind = kind or _kind_by_zeros(content[:4])
    return None if kind is None else f"{kind}: {_NEXT_STEPS.get(kind, _NEXT_STEP)}"


def _split_lines(text: str, name: str) -> list[str]:
    """Return the lines without their ends; the last newline is optional.

    Raises:
        TextFileError: a line has a carriage return that does not end it.
    """
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if lines[-1] == "":
        lines.pop()
    for number, line in enumerate(lines, 1):
        if "\r" in line:
            raise TextFileError(
                f"{name}: expected lines that end with \\n or \\r\\n, got \\r alone in line "
                f"{number}: save it with one of these line ends"
            )
    return lines


def _kind_by_zeros(start: bytes) -> str | None:
    """Return the encoding whose ASCII characters have zeros in these places."""
    return _ZEROS.get("".join("0" if byte == 0 else "x" for byte in start))
