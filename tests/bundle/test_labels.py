"""Labels of any text survive `labels.txt`, and answers show them in UTF-8."""

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hsoftmax import bundle
from hsoftmax.bundle.labels import (
    escape_label,
    format_labels,
    label_escapes,
    parse_labels,
    unescape_label,
    utf8_labels,
)
from hsoftmax.exporter import export_model, parse_destination
from hsoftmax.models import from_theano

# Any code points, surrogates among them, and often those that need an escape.
LABEL = st.text(st.sampled_from("a\\nrudc80\n\r\ufeff\ud83d\udc80") | st.characters(), max_size=8)
LABELS = st.lists(LABEL, min_size=1, max_size=6, unique=True)
ODD = [
    "a\nb",
    "a\\nb",
    "end\r",
    "\udc80",
    "\\udc80",
    "\\\\udc80",
    "\ud83d\ude00",
    "\ufeff",
    "",
    "é",
]


def export(tmp_path, labels) -> bundle.Bundle:
    rng = np.random.default_rng(0)
    shapes = [(3, 2), (2,), (2, 3, len(labels) // 2), (2, len(labels) // 2)]
    model = from_theano(*(rng.normal(size=shape) for shape in shapes))
    return export_model(model, parse_destination(tmp_path / "repository" / "words"), labels=labels)


@given(LABELS)
@example(ODD)
@example(["\ufeffgov", "gov"])
@example(["gov", "\ufeffgov"])
@example([""])
def test_labels_are_read_as_they_were_written(labels):
    escapes = label_escapes(labels)
    content = format_labels(labels, escapes).encode()
    assert parse_labels(content, escapes) == tuple(labels)


@given(LABEL)
def test_an_escaped_label_is_one_line_of_utf8(label):
    line = escape_label(label)
    line.encode()
    assert not set(line) & {"\n", "\r"}
    assert not line.startswith("\ufeff")
    assert unescape_label(line) == label


@given(LABELS)
@example(ODD)
def test_answers_show_distinct_utf8_and_change_only_what_utf8_cannot_hold(labels):
    shown = utf8_labels(labels)
    assert json.loads(json.dumps(shown, ensure_ascii=False).encode()) == list(shown)
    assert len(set(shown)) == len(labels)
    for label, text in zip(labels, shown, strict=True):
        assert (text == label) == all(not "\ud800" <= c <= "\udfff" for c in label)


def test_escapes_are_shown_as_documented():
    assert escape_label("a\nb\r\\\udc80\ud83d") == "a\\nb\\r\\\\\\udc80\\ud83d"
    assert escape_label("\ufeffa\ufeff") == "\\ufeffa\ufeff"
    assert utf8_labels(ODD)[3:7] == ("\\" * 4 + "udc80", "\\udc80", "\\\\udc80", "\\ud83d\\ude00")


def test_a_bundle_of_odd_labels_says_that_they_have_escapes(tmp_path):
    exported = export(tmp_path, ODD)
    assert exported.manifest.label_escapes == "backslash"
    assert exported.manifest.schema_version == 2
    assert bundle.stored_labels(exported) == tuple(ODD)
    assert bundle.read_labels(exported) == utf8_labels(ODD)
    lines = (exported.path / "labels.txt").read_text("utf-8").split("\n")
    assert lines == [*map(escape_label, ODD), ""]


def test_a_bundle_of_plain_labels_is_written_as_before(tmp_path):
    labels = ["\\n", "\\udc80", "a\\", "\\\\", "", "\u2028", "b\ufeff", "é"]
    exported = export(tmp_path, labels)
    written = json.loads((exported.path / bundle.MANIFEST).read_text())
    assert written["schema_version"] == 1
    assert "label_escapes" not in written
    assert (exported.path / "labels.txt").read_text("utf-8").split("\n") == [*labels, ""]
    assert bundle.read_labels(exported) == tuple(labels)


@pytest.mark.parametrize("line", ["\\", "a\\x41", "\\u12", "\\U0001f600", "\\uDC80", "\\t"])
def test_an_unknown_escape_is_refused(line):
    with pytest.raises(bundle.BundleError, match=r"labels.txt: expected .* after a backslash, got"):
        parse_labels(line.encode(), "backslash")


def test_without_escapes_a_line_is_the_label():
    assert parse_labels(b"\\n\r\na\\\nc", None) == ("\\n", "a\\", "c")
