"""Reads the file of `--labels`, in any of the forms in which vocabularies are kept.

    one label a line            line number = target
    label<TAB>id                on every line, in any order
    ["the", "of", ...]          a JSON list
    {"the": 0, "of": 1, ...}    a JSON object

The content decides. A file is JSON if all of it is a JSON list or object that is not empty. A file
has ids if its first line ends with a tab and a number. Ids are the targets, each exactly once.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hsoftmax import bundle
from hsoftmax.exporter.errors import ExportError

_LINE_WITH_ID = re.compile(r"(?P<label>.*)\t(?P<id>0|[1-9][0-9]{0,17})", re.DOTALL)
_MAX_SHOWN_CHARS = 80


def read_label_file(path: Path) -> tuple[str, ...]:
    """Return the label of each target. Raises ExportError."""
    try:
        bundle.expect_regular(path)
        content = _json_content(bundle.decode_text(path.read_bytes(), str(path)))
        if content is not None:
            return _json_labels(content, path)
        return _line_labels(bundle.read_label_file(path), path)
    except (bundle.TextFileError, bundle.NotRegularFile) as error:
        raise ExportError(str(error)) from None
    except OSError as error:
        raise ExportError(f"{path}: expected a file of labels, got {error.strerror}") from None


def pad_labels(labels: Sequence[str], num_targets: int, padding: str | None) -> tuple[str, ...]:
    """Return a label for each target; those beyond the labels are named `padding` and the target.

    Trained vocabularies are often padded, so that the softmax has more rows than there are words.
    These rows are in every sum of the softmax, and keep their probability.

    Raises:
        ExportError: fewer labels than targets, and no text for the others.
    """
    missing = range(len(labels), num_targets)
    if missing and padding is None:
        raise ExportError(
            f"labels: expected {num_targets}, got {len(labels)}: if the vocabulary is padded, "
            "name the targets beyond it with --pad-labels TEXT; they keep their probability"
        )
    return (*labels, *(f"{padding}{target}" for target in missing))


def _json_content(text: str) -> Any:  # noqa: ANN401 -- JSON holds anything
    """Return the JSON of a whole text, pairs for an object, or None if it is not JSON."""
    if text.lstrip()[:1] not in {"[", "{"}:
        return None
    try:
        return json.loads(text, object_pairs_hook=tuple) or None
    except (ValueError, RecursionError):
        return None


def _json_labels(content: Any, path: Path) -> tuple[str, ...]:  # noqa: ANN401
    if isinstance(content, tuple):
        return _by_id(content, path)
    for target, label in enumerate(content):
        if not isinstance(label, str):
            raise ExportError(
                f"{path}: expected a JSON list of text, got {_show(label)} at place {target}"
            )
    return tuple(content)


def _line_labels(lines: Sequence[str], path: Path) -> tuple[str, ...]:
    if not lines or not _LINE_WITH_ID.fullmatch(lines[0]):
        _expect_no_blank(lines, path)
        return tuple(lines)
    pairs: list[tuple[str, object]] = []
    for number, line in enumerate(lines, 1):
        match = _LINE_WITH_ID.fullmatch(line)
        if match is None:
            raise ExportError(
                f"{path}: expected label<TAB>id on every line, as on the first, got "
                f"{line[:_MAX_SHOWN_CHARS]!r} on line {number}"
            )
        pairs.append((match["label"], int(match["id"])))
    return _by_id(pairs, path)


def _expect_no_blank(lines: Sequence[str], path: Path) -> None:
    """Raise ExportError for an empty line, after which each label would have the next target."""
    if "" in lines:
        raise ExportError(
            f"{path}: expected a label on every line, got none on line {lines.index('') + 1}: "
            "remove the line, or give the labels as a JSON list if one of them is empty"
        )


def _by_id(pairs: Iterable[tuple[str, object]], path: Path) -> tuple[str, ...]:
    """Return the labels in the order of their ids, which must be 0 to N - 1, each once."""
    pairs = list(pairs)
    label_of: dict[object, str] = {}
    for label, target in pairs:
        is_id = type(target) is int and 0 <= target < len(pairs) and target not in label_of
        if not is_id:
            raise ExportError(
                f"{path}: expected the ids 0 to {len(pairs) - 1}, each once, got "
                f"{_show(target)} for {label[:_MAX_SHOWN_CHARS]!r}"
            )
        label_of[target] = label
    return tuple(label_of[target] for target in range(len(pairs)))


def _show(value: object) -> str:
    """Return a number or text as it is, and the kind of anything else."""
    if isinstance(value, str | int | float):
        return repr(value)[:_MAX_SHOWN_CHARS]
    return "nothing" if value is None else "a list" if isinstance(value, list) else "an object"
