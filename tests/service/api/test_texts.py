"""Texts in place of hidden states: operations answer them, and bad ones get one clear error."""

import io
import os
import shutil

import fasttext
import numpy as np
import pyarrow as pa
import pytest
from gensim.models import Word2Vec

from hsoftmax.exporter import SourceOptions, export_file
from hsoftmax.featurizers import FEATURES, MAX_TEXT_BYTES
from hsoftmax.service.inference import body_bounds, texts
from tests.exporter.sources.test_fasttext import SENTENCES, real_model
from tests.service.conftest import HIDDEN, expect_error, serving

WORDS = [
    [f"w{int(w)}" for w in np.random.default_rng(i).zipf(1.3, 12) if w < 90] for i in range(90)
]
TEXTS = list(SENTENCES.values())


@pytest.fixture(scope="module")
def word_model():
    return Word2Vec(WORDS, sg=0, hs=1, negative=0, vector_size=12, min_count=1, seed=1, workers=1)


@pytest.fixture(scope="module")
def text_repository(tmp_path_factory, word_model, repository):
    folder = tmp_path_factory.mktemp("texts")
    to = folder / "repository"
    options = SourceOptions(compat="fasttext")
    export_file(real_model(), to / "lid", source="fasttext", options=options)
    word_model.save(str(folder / "words.model"))
    export_file(folder / "words.model", to / "context", source="gensim")
    shutil.copytree(repository / "words", to / "words")
    return to


@pytest.fixture(scope="module")
def text_client(text_repository):
    with serving(text_repository, max_rows=100) as client:
        yield client


def ask(client, name, operation, **query):
    response = client.post(f"/v1/models/{name}/{operation}", json=query)
    assert response.status_code == 200, response.text
    return response.json()


def without_names(answer):
    return {field: value for field, value in answer.items() if field not in {"model", "version"}}


def test_top_k_of_texts_is_fasttexts_prediction(text_client):
    oracle = fasttext.load_model(str(real_model()))
    results = ask(text_client, "lid", "top_k", inputs=TEXTS, k=1)["results"]
    for text, result in zip(TEXTS, results, strict=True):
        labels, probabilities = oracle.predict(text, k=1)
        assert result["labels"] == [label.removeprefix("__label__") for label in labels]
        np.testing.assert_allclose(result["probabilities"], probabilities, atol=2e-6)


OPERATIONS = {
    "probabilities": {"targets": ["en", "fr"]},
    "top_k": {"k": 2},
    "sample": {"num_samples": 3, "seed": 5},
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", ["lid", "context"])
def test_every_operation_answers_texts_as_it_answers_their_hidden_states(
    text_client, word_model, operation, name
):
    if name == "lid":
        rows = ["hello", "bonjour tout le monde"]
        oracle = fasttext.load_model(str(real_model()))
        hidden = [oracle.get_sentence_vector(row).tolist() for row in rows]
        fields = OPERATIONS[operation]
    else:
        rows = [["w1"], ["w3"]]
        hidden = [word_model.wv[row[0]].tolist() for row in rows]
        fields = OPERATIONS[operation] | (
            {"targets": [1, 2]} if operation == "probabilities" else {}
        )
    of_texts = ask(text_client, name, operation, inputs=rows, **fields)
    assert without_names(of_texts) == without_names(
        ask(text_client, name, operation, inputs=hidden, **fields)
    )


def test_the_full_distribution_of_a_text_is_answered(text_client):
    row = ask(text_client, "lid", "probabilities", inputs=["hello"])["probabilities"][0]
    assert len(row) == 176


def test_texts_and_words_are_both_taken(text_client):
    one, other = (
        ask(text_client, "context", "top_k", inputs=[row])["results"]
        for row in (["w1", "w2", "w5"], "w1 w2 w5")
    )
    assert one == other


def test_long_texts_are_turned_in_a_thread_and_answered_the_same(text_client, monkeypatch):
    text = "le navire quittera le port " * 2000
    long = ask(text_client, "lid", "top_k", inputs=[text, "hello"])
    monkeypatch.setattr(texts, "_INLINE_CHARS", 2**30)
    assert ask(text_client, "lid", "top_k", inputs=[text, "hello"]) == long


def test_a_model_says_what_its_inputs_may_be(text_client):
    inputs = {one["name"]: one["inputs"] for one in text_client.get("/v1/models").json()["models"]}
    assert inputs == {
        "lid": ["hidden", "text", "words"],
        "context": ["hidden", "words", "text"],
        "words": ["hidden"],
    }


def test_the_schema_of_inputs_has_texts(text_client):
    schemas = text_client.get("/openapi.json").json()["components"]["schemas"]
    rows, named = schemas["TopKQuery"]["properties"]["inputs"]["anyOf"]
    items = rows["items"]["anyOf"]
    assert named["type"] == "object"
    assert {"type": "string"} in items


BAD = {
    "text to a bundle without text": (
        "words", ["hello"],
        "inputs row 0: expected a list of 8 numbers, got text: words takes no text, so send hidden "
        "states, or export a fastText or gensim model with its text",
    ),
    "words to a bundle without text": (
        "words", [["a", "b"]], "expected a number, got a string: words takes no text",
    ),
    "as many characters as numbers": ("words", ["x" * HIDDEN], "got text: words takes no text"),
    "as many words as numbers": ("words", [["x"] * HIDDEN], "position 0: expected a number"),
    "an unknown word": (
        "context", [["w1"], ["nonesuch"]],
        "inputs row 1: expected a word that the model knows, got 'nonesuch': send words",
    ),
    "no word": ("context", [["w1"], ""], "inputs row 1: expected words, got none"),
    "two lines": ("lid", ["a\nb"], "inputs row 0: expected one line, got a line end at byte 1"),
    "too long": ("lid", ["x" * (MAX_TEXT_BYTES + 1)], "expected a text of at most 1048576 bytes"),
    "numbers among texts": ("lid", ["hello", [0.5] * 16], "row 1: expected a text or a list"),
    "a number among words": ("lid", [["hello", 1]], "inputs row 0: expected a text or a list"),
    "text among numbers": ("lid", [[0.5] * 16, "hello"], "row 1: expected a list of 16 numbers"),
    "a word among numbers": ("lid", [[0.5] * 15 + ["x"]], "position 15: expected a number, got a"),
    "neither": ("lid", [3], "inputs row 0: expected a string or a list, got an integer"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_text_is_refused_with_the_next_step(text_client, case):
    name, inputs, sentence = BAD[case]
    response = text_client.post(f"/v1/models/{name}/top_k", json={"inputs": inputs})
    expect_error(response, 422, "invalid_query", sentence)


def test_too_many_texts_and_words_are_refused(text_client, monkeypatch):
    response = text_client.post("/v1/models/lid/top_k", json={"inputs": ["a"] * 101})
    expect_error(response, 413, "too_large", "inputs: expected at most 100 rows, got 101")
    monkeypatch.setattr(body_bounds, "_MAX_LISTED_WORDS", 10)
    words = ["w"] * 100_000
    response = text_client.post("/v1/models/lid/top_k", json={"inputs": [words]})
    expect_error(response, 413, "too_large", "texts")


def test_long_texts_have_a_bound_of_their_own_and_short_ones_pass(text_client, monkeypatch):
    monkeypatch.setattr(texts, "_MAX_PENDING", 0)
    response = text_client.post("/v1/models/lid/top_k", json={"inputs": ["a " * 10_000]})
    expect_error(response, 429, "overloaded", "texts: as many as may be are waiting already")
    assert response.headers["retry-after"] == "1"
    assert ask(text_client, "lid", "top_k", inputs=["a b c"])["results"]


def test_a_bundle_whose_features_were_changed_in_place_is_not_asked(text_repository, tmp_path):
    folder = shutil.copytree(text_repository, tmp_path / "repository")
    with serving(folder, watch=False) as client:
        features = folder / "lid" / "1" / FEATURES
        os.utime(features, ns=(1, 1))
        response = client.post("/v1/models/lid/top_k", json={"inputs": ["hello"]})
        expect_error(response, 503, "bundle_changed")


def test_a_bundle_with_damaged_features_is_refused(text_repository, tmp_path):
    folder = shutil.copytree(text_repository, tmp_path / "repository")
    features = folder / "lid" / "1" / FEATURES
    content = bytearray(features.read_bytes())
    content[-1] ^= 1
    features.write_bytes(content)
    with serving(folder) as client:
        assert "lid" not in {one["name"] for one in client.get("/v1/models").json()["models"]}
        assert client.post("/v1/models/lid/top_k", json={"inputs": ["x"]}).status_code in (404, 409)


def arrow_body(columns):
    batch = pa.RecordBatch.from_pydict(columns)
    body = io.BytesIO()
    with pa.ipc.new_stream(body, batch.schema) as stream:
        stream.write_batch(batch)
    return body.getvalue()


def ask_arrow(client, columns, operation="top_k", name="lid", **params):
    headers = {"content-type": "application/vnd.apache.arrow.stream", "accept": "application/json"}
    url = f"/v1/models/{name}/{operation}"
    return client.post(url, params=params, content=arrow_body(columns), headers=headers)


ARROW_TEXTS = {
    "string": pa.array(TEXTS),
    "large_string": pa.array(TEXTS, pa.large_string()),
    "string_view": pa.array(TEXTS, pa.string_view()),
    "dictionary": pa.array(TEXTS).dictionary_encode(),
    "words": pa.array([text.split() for text in TEXTS]),
    "views of words": pa.array([text.split() for text in TEXTS], pa.list_(pa.string_view())),
}


@pytest.mark.parametrize("kind", ARROW_TEXTS)
def test_arrow_bodies_have_texts(text_client, kind):
    expected = ask(text_client, "lid", "top_k", inputs=TEXTS, k=2)
    answer = ask_arrow(text_client, {"inputs": ARROW_TEXTS[kind]}, k=2)
    assert answer.json() == expected
    columns = {"inputs": ARROW_TEXTS[kind], "targets": list(SENTENCES)}
    answer = ask_arrow(text_client, columns, "probabilities")
    query = {"inputs": TEXTS, "targets": list(SENTENCES)}
    assert answer.json() == ask(text_client, "lid", "probabilities", **query)


def test_bad_texts_in_arrow_bodies_are_refused(text_client):
    long = "le navire " * 90_000
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 90), pa.array([long]))
    for case, status, code, sentence in [
        (pa.array(["hello", None]), 422, "invalid_query", "inputs row 1: expected a text or a li"),
        (pa.array([["hello", None]]), 422, "invalid_query", "inputs row 0: expected a text or a"),
        (pa.array(["hello", "a\nb"]), 422, "invalid_query", "inputs row 1: expected one line"),
        (pa.array([True]), 422, "invalid_query", "expected lists of numbers, texts or lists of"),
        (pa.array(["a"] * 101), 413, "too_large", "inputs: expected at most 100 rows, got 101"),
        (repeated, 413, "too_large", "inputs: expected rows of at most 16777216 bytes in all"),
    ]:
        expect_error(ask_arrow(text_client, {"inputs": case}), status, code, sentence)
    answer = ask_arrow(text_client, {"inputs": pa.array(["hello"])}, name="words")
    expect_error(answer, 422, "invalid_query", "got text: words takes no text, so send hidden")


def shared_by(rows: int, values: pa.Array) -> pa.Array:
    """Return rows that each are the whole list of values."""
    starts, sizes = np.zeros(rows, np.int32), np.full(rows, len(values), np.int32)
    return pa.ListViewArray.from_arrays(pa.array(starts), pa.array(sizes), values)


@pytest.mark.skipif(int(pa.__version__.split(".")[0]) < 19, reason="pyarrow 18 builds no views")
def test_views_of_one_text_are_counted_as_often_as_they_stand(text_client):
    long = "le navire " * 90_000
    view = np.array([len(long), int.from_bytes(b"le n", "little"), 0, 0], dtype=np.int32)
    buffers = [None, pa.py_buffer(np.tile(view, 90)), pa.py_buffer(long.encode())]
    views = pa.Array.from_buffers(pa.string_view(), 90, buffers)
    expected = "inputs: expected rows of at most 16777216 bytes in all, got 81000000"
    expect_error(ask_arrow(text_client, {"inputs": views}), 413, "too_large", expected)


def test_rows_that_share_bytes_are_refused_before_they_are_copied(text_client):
    texts, long = pa.array(["hello"] * 90), pa.array(["le navire " * 90_000])
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 90), long)
    numbers = pa.array(np.zeros(50_000, np.float32))
    for columns, refused in [
        ({"inputs": shared_by(90, numbers)}, "inputs"),
        ({"inputs": shared_by(90, repeated)}, "inputs"),
        ({"inputs": texts, "targets": repeated}, "targets"),
        ({"inputs": texts, "targets": shared_by(90, repeated)}, "targets"),
        ({"inputs": texts, "targets": shared_by(90, pa.array(range(50_000)))}, "targets"),
    ]:
        answer = ask_arrow(text_client, columns, "probabilities")
        expect_error(answer, 413, "too_large", f"{refused}: expected rows of at most 16777216 byt")
