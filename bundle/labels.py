"""Reads and writes `labels.txt`, which has the label of each target on a line of its own.

A label may hold any text, also text that a line of UTF-8 cannot hold: a line end, a surrogate (one
half of a UTF-16 pair, or a byte that was not UTF-8), a byte order mark at the start of the file. If
a bundle has such a label, all of its labels are written with escapes, and the manifest says so in
`label_escapes`. Without that field, a line is the label itself.

| escape | character |
|---|---|
| `\\\\` | backslash |
| `\\n`, `\\r` | line feed, carriage return |
| `\\udc80` | the code point U+DC80, always with four digits |
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from hsoftmax.models.hierarchical_softmax import INNER_ROWS

from .directory import Bundle, BundleError
from .manifest import LABELS, LabelEscapes, Manifest
from .text_file import read_lines

_FASTTEXT_PREFIX = "__label__"
_MARK = "\ufeff"
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNWRITABLE = re.compile("[\n\r\ud800-\udfff]")
_ESCAPED = re.compile(f"[\\\\\n\r\ud800-\udfff]|^{_MARK}")
_ESCAPE = re.compile(r"\\(?:(?P<plain>[\\nr])|u(?P<code>[0-9a-f]{4})|)")
_PLAIN = {"\\": "\\", "n": "\n", "r": "\r"}
_PLAIN_ESCAPES = {character: f"\\{letter}" for letter, character in _PLAIN.items()}


def read_labels(bundle: Bundle) -> tuple[str, ...] | None:
    """Return the label of each target as answers show it, or None if the bundle has no labels.

    Raises:
        BundleError: labels that are not UTF-8, not distinct, or not one for each target.
    """
    labels = stored_labels(bundle)
    return None if labels is None else utf8_labels(labels)


def stored_labels(bundle: Bundle) -> tuple[str, ...] | None:
    """Return the label of each target as the model was exported with, or None.

    Raises:
        BundleError: as `read_labels`.
    """
    manifest = bundle.manifest
    if manifest.labels is None:
        return None
    labels = parse_labels(bundle.file(manifest.labels).read_bytes(), manifest.label_escapes)
    expect_labels(labels, manifest.num_targets or 0)
    return labels


def read_inner_labels(bundle: Bundle, labels: Sequence[str]) -> tuple[str, ...]:
    """Return the label of each inner node; empty if the bundle has none.

    Raises:
        BundleError: as `read_labels`, or a label that is also one of the targets' `labels`.
    """
    manifest = bundle.manifest
    if manifest.inner_labels is None:
        return ()
    content = bundle.file(manifest.inner_labels).read_bytes()
    inner = parse_labels(content, manifest.label_escapes)
    sizes = {tensor.name: tensor.shape[0] for tensor in manifest.tensors if tensor.shape}
    expect_labels(inner, sizes.get(INNER_ROWS, 0))
    if both := set(labels).intersection(inner):
        raise BundleError(
            f"{manifest.inner_labels}: expected labels that no target has, got {min(both)!r}"
        )
    return utf8_labels(inner)


def label_prefix(manifest: Manifest) -> str:
    """Return text that a label may have in front when it is looked up, empty if there is none.

    fastText writes `__label__` before each label of a text; the labels of a bundle do not have it.
    """
    return _FASTTEXT_PREFIX if manifest.source.format == "fasttext" else ""


def read_label_file(path: Path) -> tuple[str, ...]:
    """Return the lines of a user's text file, one label a line, in which nothing is an escape.

    Raises:
        TextFileError: the file is not UTF-8, or has other line ends.
        OSError: the file cannot be read.
    """
    return tuple(read_lines(path, str(path)))


def parse_labels(content: bytes, escapes: LabelEscapes | None) -> tuple[str, ...]:
    """Parse the content of `labels.txt`; the last newline is optional."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"{LABELS}: expected UTF-8, got byte {error.start} that is not") from None
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    if escapes is None:
        return tuple(line.removesuffix("\r") for line in lines)
    return tuple(map(unescape_label, lines))


def label_escapes(labels: Sequence[str]) -> LabelEscapes | None:
    """Return the escapes that `labels.txt` needs for these labels, or None if it needs none."""
    needed = any(map(_UNWRITABLE.search, labels)) or (labels and labels[0].startswith(_MARK))
    return "backslash" if needed else None


def format_labels(labels: Iterable[str], escapes: LabelEscapes | None) -> str:
    """Return the content of `labels.txt`."""
    lines = labels if escapes is None else map(escape_label, labels)
    return "".join(f"{line}\n" for line in lines)


def expect_labels(labels: Iterable[str], num_targets: int) -> None:
    """Raise BundleError unless there is exactly one distinct label for each target."""
    seen: dict[str, int] = {}
    for target, label in enumerate(labels):
        if label in seen:
            raise BundleError(
                f"labels: expected each once, got {label!r} for targets {seen[label]} and {target}"
            )
        seen[label] = target
    if len(seen) != num_targets:
        raise BundleError(f"labels: expected {num_targets}, got {len(seen)}")


def escape_label(label: str) -> str:
    """Return the label with escapes, as one line of UTF-8."""
    return _ESCAPED.sub(_escape, label)


def unescape_label(line: str) -> str:
    """Return the label of a line with escapes. Raises BundleError for an escape that is unknown."""
    return _ESCAPE.sub(_character, line)


def utf8_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Return labels that UTF-8, and so every format of an answer, can hold.

    A label with a surrogate is shown with escapes, every other label as it is. If the escaped text
    is also another label of the bundle, it is escaped again, so that labels stay distinct.
    """
    if not any(map(_SURROGATE.search, labels)):
        return tuple(labels)
    plain = {label for label in labels if not _SURROGATE.search(label)}
    return tuple(label if label in plain else _escape_apart(label, plain) for label in labels)


def _escape_apart(label: str, taken: set[str]) -> str:
    shown = escape_label(label)
    while shown in taken:
        shown = escape_label(shown)
    return shown


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    return _PLAIN_ESCAPES.get(character) or f"\\u{ord(character):04x}"


def _character(match: re.Match[str]) -> str:
    if match["plain"]:
        return _PLAIN[match["plain"]]
    if match["code"]:
        return chr(int(match["code"], 16))
    raise BundleError(
        f"{LABELS}: expected \\\\, \\n, \\r or \\u and four digits after a backslash, got "
        f"{match.string[match.start() :][:6]!r}"
    )
