"""Streams of texts: NDJSON and Arrow rows are scored as fastText scores them."""

import io
import json
import time

import fasttext
import numpy as np
import pyarrow as pa
import pytest

from hsoftmax.exporter import SourceOptions, export_file
from tests.exporter.sources.test_fasttext import SENTENCES, real_model
from tests.service.conftest import expect_error, serving

URL = "/v1/models/lid/score"


@pytest.fixture(scope="module")
def text_client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    options = SourceOptions(compat="fasttext")
    export_file(real_model(), folder / "lid", source="fasttext", options=options)
    with serving(folder) as client:
        yield client


@pytest.fixture(scope="module")
def expected():
    oracle = fasttext.load_model(str(real_model()))
    return [float(oracle.predict(text)[1][0]) for text in SENTENCES.values()]


def records(response):
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def ask(client, body, content_type="application/x-ndjson", task="target_log_prob"):
    headers = {"content-type": content_type, "accept": "application/x-ndjson"}
    return records(client.post(f"{URL}?task={task}", content=body, headers=headers))


@pytest.mark.parametrize("name", ["text", "input"])
def test_lines_of_texts(text_client, expected, name):
    rows = [{name: text, "target": language} for language, text in SENTENCES.items()]
    *answers, end = ask(text_client, "\n".join(map(json.dumps, rows * 50)))
    assert end["summary"]["scored"] == 500
    scores = np.exp([answer["log_prob"] for answer in answers])
    np.testing.assert_allclose(scores, np.tile(expected, 50), atol=2e-6)


def test_wrong_lines_fail_alone(text_client):
    inputs = ["hello", "a\nb", [0.5] * 16, [0.5] * 3, ["hello"], "x" * 1_100_000]
    body = "\n".join(json.dumps({"input": row, "target": "en"}) for row in inputs)
    *answers, end = ask(text_client, body)
    assert [answer.get("code") for answer in answers] == [
        None, "invalid_query", None, "invalid_query", None, "invalid_query",
    ]  # fmt: skip
    assert end["summary"]["failed"] == 3


def arrow_body(columns):
    batch = pa.RecordBatch.from_pydict(columns)
    body = io.BytesIO()
    with pa.ipc.new_stream(body, batch.schema) as stream:
        stream.write_batch(batch)
    return body.getvalue()


def test_a_long_text_in_a_dictionary_is_read_once_for_many_rows(text_client):
    """Expanded, these rows would have 2 GB."""
    texts = pa.array(["le navire " * 100_000, "hello", "a\nb"])
    rows = np.tile(np.array([0, 1, 2, 0], dtype=np.int32), 500)
    indices = pa.array(rows, mask=np.arange(2000) == 5)
    columns = {"text": pa.DictionaryArray.from_arrays(indices, texts), "target": ["fr"] * 2000}
    started = time.process_time()
    *answers, end = ask(text_client, arrow_body(columns), "application/vnd.apache.arrow.stream")
    assert time.process_time() - started < 20
    assert end["summary"] == {**end["summary"], "rows_in": 2000, "failed": 501}
    assert answers[0]["log_prob"] == answers[3]["log_prob"] != answers[1]["log_prob"]
    assert answers[5]["error"] == "input: expected a value, got none"
    assert answers[2]["error"].startswith("input: expected one line")


def test_texts_that_are_not_utf8_fail_their_rows(text_client):
    wrong = pa.array([b"a\xff", b"\xff"]).view(pa.string())
    columns = {"text": wrong, "target": ["en", "en"]}
    *answers, end = ask(text_client, arrow_body(columns), "application/vnd.apache.arrow.stream")
    assert end["summary"]["failed"] == 2
    assert all("text in UTF-8" in answer["error"] for answer in answers)


def test_words_in_a_dictionary_are_refused(text_client):
    words = pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int32()), pa.array(["hello"]))
    columns = {"text": pa.ListArray.from_arrays([0, 2], words), "target": ["en"]}
    headers = {"content-type": "application/vnd.apache.arrow.stream"}
    response = text_client.post(URL, content=arrow_body(columns), headers=headers)
    expect_error(response, 422, "invalid_query", "expected lists of 16 numbers")


@pytest.mark.parametrize("name", ["text", "input"])
def test_arrow_columns_of_texts(text_client, expected, name):
    columns = {name: list(SENTENCES.values()), "target": list(SENTENCES)}
    *answers, _ = ask(text_client, arrow_body(columns), "application/vnd.apache.arrow.stream")
    np.testing.assert_allclose(
        np.exp([answer["log_prob"] for answer in answers]), expected, atol=2e-6
    )
