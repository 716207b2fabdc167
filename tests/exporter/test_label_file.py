"""Files of labels in every form, and vocabularies with fewer labels than the softmax has rows."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsoftmax import bundle, models
from hsoftmax.cli import run
from hsoftmax.exporter import ExportError, export_file
from hsoftmax.exporter.files.label_file import read_label_file
from hsoftmax.runtime.sessions import open_session

LABELS = ("the", "of", "ünï", "a\tb", "", "[PAD]")
IDS = {label: target for target, label in enumerate(LABELS)}
FORMS = {
    "ids": "\n".join(f"{label}\t{target}" for label, target in IDS.items()),
    "ids in another order": "\n".join(f"{label}\t{IDS[label]}" for label in reversed(LABELS)),
    "JSON list": json.dumps(LABELS),
    "JSON list over lines": json.dumps(LABELS, indent=2, ensure_ascii=False),
    "JSON object": json.dumps(dict(reversed(IDS.items()))),
}
LABEL = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=5)


def write_labels(tmp_path, text: str):
    (tmp_path / "labels").write_text(text, "utf-8", newline="")
    return tmp_path / "labels"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_labels_are_read_in_every_form(tmp_path, form, start):
    assert read_label_file(write_labels(tmp_path, start + FORMS[form])) == LABELS
    assert read_label_file(write_labels(tmp_path, f"{start}{FORMS[form]}\r\n")) == LABELS


@given(st.lists(LABEL, min_size=1, max_size=6, unique=True), st.randoms())
def test_any_labels_are_the_same_in_every_form_with_ids(tmp_path_factory, labels, random):
    folder, shuffled = tmp_path_factory.mktemp("labels"), list(enumerate(labels))
    random.shuffle(shuffled)
    forms = (
        "\n".join(f"{label}\t{target}" for target, label in shuffled) + "\n",
        json.dumps({label: target for target, label in shuffled}),
        json.dumps(labels),
    )
    for text in forms:
        assert read_label_file(write_labels(folder, text)) == tuple(labels)


@pytest.mark.parametrize(
    "text",
    ["[PAD]\n[UNK]\nthe", "[\n]", "{\n}", "[", "the\t-3.25\nof\t-4", "a\nb\t7", "a\t01\nb\t1"],
)
def test_other_files_have_one_label_a_line(tmp_path, text):
    assert read_label_file(write_labels(tmp_path, text)) == tuple(text.split("\n"))


@pytest.mark.parametrize(
    ("text", "line"), [("\nthe\nof", 1), ("the\n\nof\n", 2), ("the\nof\n\n", 3), ("a\r\n\r\nb", 2)]
)
def test_an_empty_line_is_no_label(tmp_path, text, line):
    with pytest.raises(ExportError, match=f"got none on line {line}: remove the line, or give"):
        read_label_file(write_labels(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the\t0\nof", r"expected label<TAB>id on every line, as on the first, got 'of' on line 2"),
        ("the\t9412\nof\t312", r"expected the ids 0 to 1, each once, got 9412 for 'the'"),
        ("the\t0\nof\t0", r"expected the ids 0 to 1, each once, got 0 for 'of'"),
        ("the\t1\nof\t2", r"expected the ids 0 to 1, each once, got 2 for 'of'"),
        ('{"the": 0, "of": 2}', r"expected the ids 0 to 1, each once, got 2 for 'of'"),
        ('{"the": true}', r"expected the ids 0 to 0, each once, got True for 'the'"),
        ('{"the": 0.0}', r"got 0.0 for 'the'"),
        ('{"0": "the"}', r"got 'the' for '0'"),
        ('{"the": -1}', r"got -1 for 'the'"),
        ('{"model": {"vocab": {"the": 0}}}', r"got an object for 'model'"),
        ('["the", 3]', r"expected a JSON list of text, got 3 at place 1"),
        ('[["the"]]', r"expected a JSON list of text, got a list at place 0"),
        ("[null]", r"expected a JSON list of text, got nothing at place 0"),
    ],
)
def test_files_whose_ids_are_no_targets_are_one_line(tmp_path, text, message):
    with pytest.raises(ExportError, match=message) as raised:
        read_label_file(write_labels(tmp_path, text))
    assert "\n" not in str(raised.value)


def test_a_label_that_a_json_object_names_twice_is_refused(tmp_path, weights, repository):
    labels = write_labels(tmp_path, '{"a": 0, "a": 1}')
    assert read_label_file(labels) == ("a", "a")
    with pytest.raises(bundle.BundleError, match="expected each once, got 'a' for targets 0 and 1"):
        export_file(weights, repository / "w", source="theano", labels=labels, label_padding="x")


def test_deeply_nested_json_is_no_traceback(tmp_path):
    text = "[" * 200_000
    assert read_label_file(write_labels(tmp_path, text)) == (text,)


def test_fewer_labels_than_targets_are_refused_with_the_option(
    tmp_path, weights, repository, capsys
):
    labels = write_labels(tmp_path, "\n".join(f"w{i}" for i in range(15)))
    arguments = ["export", str(weights), "--labels", str(labels), "--to", str(repository / "w")]
    assert run(arguments) == 1
    said = capsys.readouterr().err
    assert "labels: expected 18, got 15: if the vocabulary is padded, name the targets" in said
    assert "--pad-labels TEXT" in said
    assert not repository.exists()


def test_padding_rows_keep_their_probability_and_get_a_label(tmp_path, weights, arrays, repository):
    names = [f"w{i}" for i in range(15)]
    labels = write_labels(tmp_path, "\n".join(names))
    arguments = ["export", str(weights), "--labels", str(labels), "--pad-labels", "<pad>"]
    assert run([*arguments, "--to", str(repository / "w")]) == 0
    opened = bundle.open_bundle(repository / "w" / "1")
    assert bundle.read_labels(opened) == (*names, "<pad>15", "<pad>16", "<pad>17")
    hidden = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    actual = open_session(opened.path / "log_probs.onnx").run(None, {"hidden": hidden})[0]
    model = models.from_theano(**arrays, num_targets=18)
    np.testing.assert_allclose(actual, models.reference(model).log_probs(model, hidden), atol=1e-5)
    assert (np.exp(actual)[:, 15:] > 0).all()
    np.testing.assert_allclose(np.exp(actual).sum(axis=1), 1, rtol=1e-5)


def test_a_label_of_a_padding_row_that_is_taken_is_refused(tmp_path, weights, repository):
    labels = write_labels(tmp_path, "\n".join(["<pad>17", *(f"w{i}" for i in range(14))]))
    with pytest.raises(bundle.BundleError, match="expected each once, got '<pad>17' for targets"):
        export_file(
            weights, repository / "w", source="theano", labels=labels, label_padding="<pad>"
        )


def test_more_labels_than_targets_are_refused(tmp_path, weights, repository):
    labels = write_labels(tmp_path, "\n".join(f"w{i}" for i in range(19)))
    with pytest.raises(bundle.BundleError, match="labels: expected 18, got 19"):
        export_file(weights, repository / "w", source="theano", labels=labels, label_padding="x")
