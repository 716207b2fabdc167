"""Streams of texts: NDJSON and Arrow rows are scored as fastText scores them."""

import io
import json

import fasttext
import numpy as np
import pyarrow as pa
import pytest

from hsoftmax.exporter import SourceOptions, export_file
from tests.exporter.sources.test_fasttext import SENTENCES, real_model
from tests.service.conftest import serving

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


def test_lines_of_texts(text_client, expected):
    rows = [{"input": text, "target": language} for language, text in SENTENCES.items()]
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


@pytest.mark.parametrize("name", ["text", "input"])
def test_arrow_columns_of_texts(text_client, expected, name):
    columns = {name: list(SENTENCES.values()), "target": list(SENTENCES)}
    batch = pa.RecordBatch.from_pydict(columns)
    body = io.BytesIO()
    with pa.ipc.new_stream(body, batch.schema) as stream:
        stream.write_batch(batch)
    *answers, _ = ask(text_client, body.getvalue(), "application/vnd.apache.arrow.stream")
    np.testing.assert_allclose(
        np.exp([answer["log_prob"] for answer in answers]), expected, atol=2e-6
    )
