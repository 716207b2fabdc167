"""`hsoftmax score` of texts, in every format, equals fastText; wrong texts fail alone."""

import gzip
import json

import fasttext
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from hsoftmax.cli import run
from hsoftmax.exporter import SourceOptions, export_file
from tests.exporter.sources.test_fasttext import SENTENCES, real_model

TEXTS = list(SENTENCES.values())


@pytest.fixture(scope="module")
def languages(tmp_path_factory):
    to = tmp_path_factory.mktemp("texts") / "lid"
    return export_file(
        real_model(), to, source="fasttext", options=SourceOptions(compat="fasttext")
    ).path


@pytest.fixture(scope="module")
def likeliest():
    oracle = fasttext.load_model(str(real_model()))
    return [oracle.predict(text)[0][0].removeprefix("__label__") for text in TEXTS]


def score(bundle, path, capsys, *options, task="top_k", expect=0, to="out.ndjson"):
    output = path.with_name(to)
    code = run(["score", str(bundle), str(path), str(output), "--task", task, *options])
    said = capsys.readouterr()
    assert code == expect, said.err
    if expect:
        return said.err
    return [json.loads(line) for line in output.read_text().splitlines()]


def cells(text):
    return '"' + text.replace('"', '""') + '"'


def write_input(folder, of, column="text"):
    path = folder / f"in.{of}"
    rows = {column: TEXTS, "id": list(range(len(TEXTS))), "target": list(SENTENCES)}
    table = pa.table(rows)
    match of:
        case "txt":
            path.write_text("".join(f"{text}\n" for text in TEXTS))
        case "txt.gz":
            path.write_bytes(gzip.compress("\n".join(TEXTS).encode()))
        case "csv":
            lines = [f"{i},{cells(text)},{language}" for i, (language, text)
                     in enumerate(SENTENCES.items())]  # fmt: skip
            path.write_text("\n".join([f"id,{column},target", *lines]))
        case "ndjson":
            lines = [json.dumps({"id": i, column: text, "target": language})
                     for i, (language, text) in enumerate(SENTENCES.items())]  # fmt: skip
            path.write_text("\n".join(lines))
        case "parquet":
            pq.write_table(table, path)
        case "arrow":
            pa.feather.write_feather(table, str(path), compression="uncompressed")
    return path


@pytest.mark.parametrize("of", ["txt", "txt.gz", "csv", "ndjson", "parquet", "arrow"])
def test_texts_of_every_format_get_fasttexts_label(languages, likeliest, tmp_path, capsys, of):
    records = score(languages, write_input(tmp_path, of), capsys, "--k", "1")
    assert [record["labels"] for record in records] == [[label] for label in likeliest]


def test_lines_name_their_text_as_they_like(languages, tmp_path, capsys):
    rows = [
        {"input": "hello"}, {"text": "hello"}, {"text": ["hello"]},
        {"input": None, "text": "hello"},
        {"input": "hello", "text": "un autre texte"}, {"input": "hello", "text": 5},
        {"text": 5}, {"text": ["hello", 1]}, {"text": None}, {"id": 1}, {"input": [0.5] * 16},
    ]  # fmt: skip
    path = tmp_path / "in.ndjson"
    path.write_text("\n".join(map(json.dumps, rows)))
    hello, *others = score(languages, path, capsys, "--k", "1")
    assert [other["probabilities"] for other in others[:5]] == [hello["probabilities"]] * 5
    assert [other.get("error") for other in others[5:]] == [
        "text: expected a string or a list, got an integer",
        "text[1]: expected a string, got an integer",
        "text: expected a string or a list, got null",
        "input or text: expected a value, got none",
        None,
    ]


def test_an_id_may_stand_in_the_column_text(languages, tmp_path, capsys):
    path = tmp_path / "in.ndjson"
    path.write_text('{"text": "a", "input": "hello"}\n')
    (record,) = score(languages, path, capsys, "--columns", "id=text")
    assert record["id"] == "a"


@pytest.mark.parametrize("of", ["csv", "parquet", "arrow"])
def test_missing_columns_are_named_with_text_where_it_is_taken(
    languages, made_head, tmp_path, capsys, of
):
    path = write_input(tmp_path, of, column="body")
    said = score(languages, path, capsys, expect=2)
    assert "columns: expected input, or h0 to h15, or text, got " in said
    said = score(made_head, path, capsys, expect=2)
    assert "columns: expected input, or h0 to h15, got " in said


@pytest.mark.parametrize("of", ["csv", "ndjson", "parquet", "arrow"])
def test_a_column_of_any_name_and_targets_beside_it(languages, tmp_path, capsys, of):
    path = write_input(tmp_path, of, column="body")
    records = score(languages, path, capsys, "--columns", "text=body", task="target_log_prob")
    oracle = fasttext.load_model(str(real_model()))
    expected = [oracle.predict(text)[1][0] for text in TEXTS]
    scores = np.exp([record["log_prob"] for record in records])
    np.testing.assert_allclose(scores, expected, atol=2e-6)


@pytest.mark.parametrize("of", ["parquet", "arrow"])
def test_lists_of_words_and_dictionaries_of_texts_are_read(
    languages, likeliest, tmp_path, capsys, of
):
    for values in (pa.array([text.split() for text in TEXTS]), pa.array(TEXTS).dictionary_encode()):
        path, table = tmp_path / f"in.{of}", pa.table({"text": values})
        if of == "parquet":
            pq.write_table(table, path)
        else:
            pa.feather.write_feather(table, str(path), compression="uncompressed")
        records = score(languages, path, capsys, "--k", "1")
        assert [record["labels"][0] for record in records] == likeliest
        (tmp_path / "out.ndjson").unlink()


def test_an_output_folder_of_a_text_is_ndjson(languages, tmp_path, capsys):
    path = write_input(tmp_path, "txt")
    assert run(["score", str(languages), str(path), str(tmp_path / "out"), "--task", "top_k"]) == 0
    assert [file.suffix for file in (tmp_path / "out").iterdir()] == [".ndjson"]


def test_wrong_texts_fail_their_rows_alone(languages, tmp_path, capsys):
    path = tmp_path / "in.txt"
    path.write_bytes(b"hello\n\nb\xffd\n" + b"x" * 2_000_000 + b"\nbonjour\r\n")
    records = score(languages, path, capsys)
    assert [record.get("code") for record in records] == [
        None, None, "invalid_query", "invalid_query", None,
    ]  # fmt: skip
    assert records[2]["error"] == "expected UTF-8, got byte 1 that is not"
    assert "expected a text of at most 1048576 bytes, got 2000000" in records[3]["error"]
    assert records[2]["line"] == 3


def test_numbers_are_still_taken_and_mixed_rows_are_refused(languages, tmp_path, capsys):
    rows = [[0.5] * 16, "hello", ["hello", "world"], [0.5, "x"], [], 5, {"a": 1}, "a\nb", None]
    path = tmp_path / "in.ndjson"
    path.write_text("\n".join(json.dumps({"input": row}) for row in rows))
    records = score(languages, path, capsys)
    assert [record.get("code") for record in records] == [None] * 3 + ["invalid_query"] * 6
    assert "input: expected one line, got a line end at byte 1" in records[7]["error"]


def test_a_bundle_without_text_says_so(made_head, tmp_path, capsys):
    said = score(made_head, write_input(tmp_path, "txt"), capsys, expect=2)
    assert "expected hidden states, as small takes no text here, got text" in said
    said = score(
        made_head, write_input(tmp_path, "csv"), capsys, "--columns", "text=text", expect=2
    )
    assert "columns: expected no text, as small takes none here" in said
    said = score(made_head, write_input(tmp_path, "ndjson"), capsys, expect=1)
    assert "input: expected 16 numbers, got text: small takes no text here, so give" in said


@pytest.fixture
def made_head(tmp_path):
    return export_file(
        real_model(), tmp_path / "small", source="fasttext", options=SourceOptions(text=False)
    ).path


def test_a_text_is_no_output_and_a_missing_column_is_named(languages, tmp_path, capsys):
    said = score(languages, write_input(tmp_path, "txt"), capsys, expect=2, to="out.txt")
    assert "expected a name ending in .ndjson, " in said
    said = score(
        languages, write_input(tmp_path, "csv"), capsys, "--columns", "text=body", expect=2
    )
    assert "columns: expected body, got id, text, target" in said


def test_a_text_beside_files_of_rows_is_no_input(languages, tmp_path, capsys):
    folder = tmp_path / "rows"
    folder.mkdir()
    write_input(folder, "csv")
    (folder / "README.txt").write_text("about the rows")
    assert len(score(languages, folder, capsys)) == len(TEXTS)
