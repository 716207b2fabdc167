"""Texts as BYTES, over HTTP and gRPC: fastText's own answers, and those to a tokenizer's ids."""

import json

import fasttext
import grpc
import numpy as np
import pytest

from hsoftmax.exporter import export_file
from tests.encoder_models import gru
from tests.exporter.sources.test_fasttext import SENTENCES, real_model
from tests.service.conftest import expect_error, serving
from tests.service.inference.test_named_inputs import export
from tests.service.raw_tensors import raw_bytes

from .conftest import arrays, expect_status, raw_request, serving_grpc, typed_request

TEXTS = list(SENTENCES.values())
WORDS = ("the", "ship", "leaves", "a", "port")
PHRASES, IDS = ["the ship leaves", "a port"], [[0, 1, 2], [3, 4]]
TOP = ("top_k_label", "top_k_prob")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A repository of a bundle with features of text, and of one with a tokenizer."""
    folder = tmp_path_factory.mktemp("texts")
    export_file(real_model(), folder / "repository" / "lid", source="fasttext")
    words = folder / "words.json"
    words.write_text(json.dumps({"kind": "words", "words": WORDS}))
    export(folder, "said", gru(), tokenizer=words)
    return folder / "repository"


@pytest.fixture(scope="module")
def text_client(texts):
    with serving(texts) as client:
        yield client


@pytest.fixture(scope="module")
def text_grpc(texts):
    with serving_grpc(texts) as service:
        yield service


def infer(client, model: str, texts: list[str], binary: bool, **fields):
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(texts)]}
    raw = raw_bytes(texts) if binary else b""
    tensor |= {"parameters": {"binary_data_size": len(raw)}} if binary else {"data": texts}
    head = json.dumps({"inputs": [tensor], **fields}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    return client.post(f"/v2/models/{model}/infer", content=head + raw, headers=headers)


def of_http(response) -> dict[str, list]:
    assert response.status_code == 200, response.text
    return {one["name"]: one["data"] for one in response.json()["outputs"]}


def of_grpc(service, request) -> dict[str, list]:
    found = arrays(service.call("ModelInfer", request))
    return {name: values.ravel().tolist() for name, values in found.items()}


def requests_of(service, model: str, texts: list[str], *outputs: str):
    return [of_grpc(service, form(model, *outputs, text=texts))
            for form in (raw_request, typed_request)]  # fmt: skip


def test_each_form_of_texts_gives_the_prediction_of_fasttext(text_client, text_grpc):
    oracle = fasttext.load_model(str(real_model()))
    predicted = [oracle.predict(text, k=1)[0][0].removeprefix("__label__") for text in TEXTS]
    outputs = [{"name": name} for name in TOP]
    answers = [of_http(infer(text_client, "lid", TEXTS, binary, outputs=outputs))
               for binary in (False, True)]  # fmt: skip
    answers += requests_of(text_grpc, "lid", TEXTS, *TOP)
    for answer in answers:
        assert answer["top_k_label"][::10] == predicted
        assert answer == answers[0]


def test_a_tokenizer_reads_the_texts_of_each_form(text_client, text_grpc):
    query = {"inputs": {"ids": IDS}, "k": 3}
    results = text_client.post("/v1/models/said/top_k", json=query).json()["results"]
    targets = [target for one in results for target in one["targets"]]
    for binary in (False, True):
        answer = of_http(infer(text_client, "said", PHRASES, binary, parameters={"k": 3}))
        assert answer["top_k_target"] == targets
    for answer in requests_of(text_grpc, "said", PHRASES, "top_k_target"):
        assert np.reshape(answer["top_k_target"], (2, -1))[:, :3].ravel().tolist() == targets


def test_texts_that_are_none_get_one_sentence(text_client, text_grpc):
    head = {"name": "text", "datatype": "BYTES", "shape": [1]}
    body = json.dumps({"inputs": [head | {"parameters": {"binary_data_size": 6}}]}).encode()
    headers = {"inference-header-content-length": str(len(body))}
    wrong = b"\2\0\0\0\xff\xfe"
    url = "/v2/models/lid/infer"
    expect_error(text_client.post(url, content=body + wrong, headers=headers), 422,
                 "invalid_query", "text: expected texts in UTF-8, got another one")  # fmt: skip
    request = raw_request("lid", text=["ab"])
    request.raw_input_contents[0] = wrong
    with expect_status(grpc.StatusCode.INVALID_ARGUMENT, "text: expected texts in UTF-8"):
        text_grpc.call("ModelInfer", request)
    request.raw_input_contents[0] = b"\x09\0\0\0ab"
    with expect_status(grpc.StatusCode.INVALID_ARGUMENT, "expected 1 elements of BYTES"):
        text_grpc.call("ModelInfer", request)
