"""The errors that a newcomer meets first name the next step."""

import pytest

from hsoftmax.service.inference.operations import OPERATIONS
from tests.service.api.test_parameters import NPY, npy_row
from tests.service.api.test_texts import text_client, text_repository, word_model  # noqa: F401
from tests.service.conftest import HIDDEN, LABELS, expect_error

ROW = [0.5] * HIDDEN


@pytest.mark.parametrize("operation", ["probabilities", "top_k", "clusters", "sample"])
def test_one_text_is_to_stand_in_a_list(client, operation):
    response = client.post(f"/v1/models/words/{operation}", json={"inputs": "hello"})
    sentence = 'inputs: expected an object or a list, got a string: put it in a list, {"inputs": '
    expect_error(response, 422, "invalid_query", sentence)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_each_field_of_a_body_is_refused_in_the_url(client, operation):
    fields = operation.query.__struct_fields__
    for name in fields:
        response = client.post(
            f"/v1/models/words/{operation.name}", params={name: "3"}, json={"inputs": [ROW]}
        )
        sentence = f'{name}: expected in the JSON body, got it in the URL: write "{name}" beside "'
        expect_error(response, 422, "invalid_query", sentence)


def test_a_matrix_body_has_its_fields_in_the_url_and_others_pass_beside_json(client):
    url = "/v1/models/words/top_k"
    of_npy = client.post(url, params={"k": 3}, content=npy_row(), headers=NPY)
    of_json = client.post(url, params={"trace": "1"}, json={"inputs": [[0.0] * HIDDEN], "k": 3})
    assert of_npy.json() == of_json.json()
    assert len(of_npy.json()["results"][0]["targets"]) == 3


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_a_405_names_the_method_that_came(client, method):
    response = client.request(method, "/v1/models/words/top_k")
    expect_error(response, 405, "method_not_allowed", f"method: expected POST, got {method}")


def test_clusters_of_a_bundle_without_them_say_what_to_ask(text_client):  # noqa: F811
    response = text_client.post("/v1/models/lid/clusters", json={"inputs": ["hello"]})
    sentence = (
        "lid version 1 has no clusters, as its family, HuffmanSoftmax, has none: "
        "ask probabilities or sample or top_k"
    )
    expect_error(response, 404, "unknown_task", sentence)


@pytest.mark.parametrize("name", ["word", "wrods", "Words", "wordss"])
def test_an_unknown_model_gets_the_closest_one(client, name):
    response = client.get(f"/v1/models/{name}")
    expect_error(response, 404, "unknown_bundle", "is not served here: did you mean words?")


# An unknown label and the label of the bundle that is close to it.
LABELS_AND_CLOSEST = {
    "word33": "word3", "wodr3": "word3", "Word3": "word3", " word3": "word3", "WORD3": "word3",
    "étoil": "étoile", "Étoile": "étoile",
}  # fmt: skip


@pytest.mark.parametrize("label", LABELS_AND_CLOSEST)
def test_an_unknown_label_gets_the_closest_one(client, label):
    wanted = f"no label {label!r} in words: did you mean {LABELS_AND_CLOSEST[label]!r}?"
    query = {"inputs": [ROW], "targets": [label]}
    response = client.post("/v1/models/words/probabilities", json=query)
    expect_error(response, 422, "unknown_label", wanted)
    response = client.get("/v1/models/words/labels", params={"label": label})
    expect_error(response, 422, "unknown_label", wanted)


def test_a_label_without_a_close_one_gets_none(client):
    query = {"inputs": [ROW], "targets": ["elephant"]}
    response = client.post("/v1/models/words/probabilities", json=query)
    expect_error(response, 422, "unknown_label", "targets: no label 'elephant' in words")
    assert "did you mean" not in response.text
    assert "elephant" not in LABELS


def test_the_examples_of_a_bundle_that_takes_text_are_texts_that_it_answers(text_client):  # noqa: F811
    examples = {m["name"]: m["example"] for m in text_client.get("/v1/models").json()["models"]}
    assert examples["words"] is None
    assert isinstance(examples["lid"], str)
    assert len(examples["context"]) == 3
    for name in ("lid", "context"):
        query = {"inputs": [examples[name]]}
        assert text_client.post(f"/v1/models/{name}/top_k", json=query).status_code == 200
    paths = text_client.get("/openapi.json").json()["paths"]
    body = paths["/v1/models/{name}/top_k"]["post"]["requestBody"]["content"]["application/json"]
    assert body["example"]["inputs"] == [examples["context"]]  # of the first bundle
