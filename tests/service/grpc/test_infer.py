"""ModelInfer and ModelStreamInfer: the numbers of /v1, in both forms of tensors."""

import grpc
import numpy as np
import pytest

from hsoftmax.service.grpc.messages import SERVICE, ModelInferResponse, ModelStreamInferResponse
from hsoftmax.service.inference.tensors.datatypes import from_bfloat16, to_bfloat16

from .conftest import arrays, expect_status, raw_request, typed_request

FORMS = pytest.mark.parametrize("build", [raw_request, typed_request])
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
def infer(service):
    """Function that answers a request."""

    def infer(request, **options):
        return service.call("ModelInfer", request, **options)

    return infer


@FORMS
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hidden_states_of_both_forms_get_the_numbers_of_v1(infer, ask, hidden, build, dtype):
    response = infer(build("words", "probs", "log_probs", hidden=hidden.astype(dtype)))
    assert bool(response.raw_output_contents) == (build is raw_request)
    got = arrays(response)
    linear = ask("probabilities", inputs=hidden.tolist())["probabilities"]
    log = ask("probabilities", inputs=hidden.tolist(), log=True)["log_probabilities"]
    np.testing.assert_allclose(got["probs"], linear, rtol=2e-7)  # JSON has them as float32
    np.testing.assert_array_equal(got["log_probs"], np.float32(log))


def test_half_precision_comes_raw(infer, ask, hidden):
    halves = hidden.astype(np.float16)
    request = raw_request("words", "log_probs", hidden=halves)
    got = arrays(infer(request))["log_probs"]
    log = ask("probabilities", inputs=halves.tolist(), log=True)["log_probabilities"]
    np.testing.assert_array_equal(got, np.float32(log))


def test_bfloat16_comes_raw(infer, ask, hidden):
    bits = to_bfloat16(hidden)
    request = raw_request("words", "log_probs", hidden=bits)
    request.inputs[0].datatype = "BF16"
    got = arrays(infer(request))["log_probs"]
    rounded = from_bfloat16(bits).tolist()
    log = ask("probabilities", inputs=rounded, log=True)["log_probabilities"]
    np.testing.assert_array_equal(got, np.float32(log))


@FORMS
@pytest.mark.parametrize("target", [np.int32([1, 2, 10]), np.int64([1, 2, 10]), None])
def test_targets_are_numbers_or_labels(infer, ask, hidden, build, target):
    target = ["word1", "word2", "étoile"] if target is None else target
    got = arrays(infer(build(hidden=hidden, target=target)))
    assert set(got) == {"target_log_prob", "target_prob"}
    linear = ask("probabilities", inputs=hidden.tolist(), targets=[1, 2, 10])["probabilities"]
    np.testing.assert_array_equal(np.float32(got["target_prob"]), np.float32(linear))


@FORMS
def test_top_k_has_labels(infer, ask, hidden, build):
    request = build("words", "top_k_target", "top_k_prob", "top_k_label", "exact", hidden=hidden)
    request.parameters["k"].int64_param = 4
    got = arrays(infer(request))
    for row, result in enumerate(ask("top_k", inputs=hidden.tolist(), k=4)["results"]):
        assert got["top_k_target"][row].tolist() == result["targets"]
        assert got["top_k_label"][row].tolist() == result["labels"]
        probabilities = np.float32(result["probabilities"])
        np.testing.assert_array_equal(np.float32(got["top_k_prob"][row]), probabilities)
        assert got["exact"][row] == result["exact"]


def test_a_typed_request_may_ask_for_raw_tensors(infer, hidden):
    request = typed_request("words", "probs", hidden=hidden)
    request.parameters["binary_data_output"].bool_param = True
    response = infer(request)
    assert len(response.raw_output_contents) == 1
    assert not response.outputs[0].HasField("contents")


def test_classification_gives_the_likeliest_classes(infer, hidden):
    request = raw_request("words", hidden=hidden)
    request.outputs.add(name="probs").parameters["classification"].int64_param = 2
    response = infer(request)
    assert response.outputs[0].datatype == "BYTES"
    best = arrays(response)["probs"][0, 0].split(":")
    assert best[1:] == ["4", "word4"]


def test_id_model_and_version_are_in_the_answer(infer, hidden):
    for version in ("", "1"):
        request = raw_request(hidden=hidden, version=version)
        request.id = "seven"
        response = infer(request)
        assert response.id == "seven"
        assert (response.model_name, response.model_version) == ("words", version or "2")


def test_trailers_have_what_http_has_as_headers(service, hidden):
    infer = service.unary(f"/{SERVICE}/ModelInfer", ModelInferResponse)
    _, call = infer.with_call(raw_request(hidden=hidden), metadata=[("x-request-id", "mine")])
    trailers = dict(call.trailing_metadata())
    assert trailers["x-request-id"] == "mine"
    assert len(trailers["x-hsoftmax-digest"]) == 64
    assert float(trailers["x-compute-time-ms"]) > 0


def both_forms(request):
    request.inputs[0].contents.fp32_contents.append(1)


def one_raw_too_many(request):
    request.raw_input_contents.append(b"")


def too_few_bytes(request):
    request.raw_input_contents[0] = b"1234"


def shared_memory(request):
    request.inputs[0].parameters["shared_memory_region"].string_param = "region"


def parameter_without_value(request):
    request.parameters["k"].SetInParent()


def unknown_datatype(request):
    request.inputs[0].datatype = "FP31"


def negative_shape(request):
    request.inputs[0].shape[0] = -1


def bad_classification(request):
    request.outputs.add(name="probs").parameters["classification"].string_param = "x"


def same_input_twice(request):
    request.inputs.append(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (both_forms, "hidden: expected raw_input_contents or contents, got both"),
        (one_raw_too_many, "raw_input_contents: expected one for each of 1 inputs, got 2"),
        (too_few_bytes, "hidden: expected 96 bytes of FP32 [3, 8], got 4"),
        (shared_memory, "hidden: expected the tensor in the message, got shared memory"),
        (parameter_without_value, "parameters.k: expected a value, got none"),
        (unknown_datatype, "hidden: expected a datatype of BOOL"),
        (negative_shape, "hidden: expected a shape without negative sizes"),
        (bad_classification, "outputs.probs.classification: expected a number of classes"),
        (same_input_twice, "inputs: expected 'hidden' once, got it twice"),
    ],
)
def test_a_wrong_request_is_refused_in_one_sentence(infer, hidden, change, sentence):
    request = raw_request(hidden=hidden)
    change(request)
    with expect_status(INVALID, sentence):
        infer(request)


def wrong_field(request):
    request.inputs[0].contents.ClearField("fp32_contents")
    request.inputs[0].contents.fp64_contents.append(1.0)


def half_precision(request):
    request.inputs[0].datatype = "FP16"


def too_many_elements(request):
    request.inputs[0].contents.fp32_contents.append(1.0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (wrong_field, "hidden: expected fp32_contents of FP32, got fp64_contents"),
        (half_precision, "hidden: expected raw_input_contents of FP16, got contents"),
        (too_many_elements, "hidden: expected 24 elements of shape [3, 8], got 25"),
    ],
)
def test_wrong_typed_contents_are_refused_in_one_sentence(infer, hidden, change, sentence):
    request = typed_request(hidden=hidden)
    change(request)
    with expect_status(INVALID, sentence):
        infer(request)


@pytest.mark.parametrize(
    ("request_fields", "code", "error_code"),
    [
        ({"model": "wordz"}, grpc.StatusCode.NOT_FOUND, "unknown_bundle"),
        ({"version": "9"}, grpc.StatusCode.NOT_FOUND, "unknown_version"),
        ({"target": np.int64([1, 2, 11])}, INVALID, "target_out_of_range"),
        ({"target": ["word1", "word2", "nonesuch"]}, INVALID, "unknown_label"),
    ],
)
def test_an_error_has_the_status_and_the_code_of_its_kind(
    infer, hidden, request_fields, code, error_code
):
    with expect_status(code) as expected:
        infer(raw_request(**{"hidden": hidden, **request_fields}))
    assert expected.trailers["x-hsoftmax-code"] == error_code
    assert len(expected.trailers["x-request-id"]) == 32


def test_a_stream_answers_in_order_and_goes_on_after_an_error(service, hidden):
    path = f"/{SERVICE}/ModelStreamInfer"
    models = ["words", "wordz", "plain"]
    requests = [raw_request(model, "probs", hidden=hidden) for model in models]
    for request in requests:
        request.id = f"id of {request.model_name}"
    stream = service.stream(path, ModelStreamInferResponse)
    answers = list(stream(iter([*requests, b"\xff"])))
    assert [one.infer_response.id for one in answers] == [*(r.id for r in requests), ""]
    assert [bool(one.error_message) for one in answers] == [False, True, False, True]
    assert "wordz" in answers[1].error_message
    assert "expected one of inference.proto" in answers[3].error_message
    for request, answer in [(requests[0], answers[0]), (requests[2], answers[2])]:
        alone = service.call("ModelInfer", request)
        assert answer.infer_response.raw_output_contents == alone.raw_output_contents
        assert answer.infer_response.parameters["triton_final_response"].bool_param


def test_each_request_of_a_stream_is_counted(service, hidden):
    route = f"/{SERVICE}/ModelStreamInfer"
    counted = service.context.metrics.counters["requests"]

    def count() -> tuple[float, ...]:
        list(service.context.metrics.collect())  # adds what is pending
        return counted[route, "plain", "7", 200, "ok"], counted[route, "", "", 200, "ok"]

    before = count()
    stream = service.stream(route, ModelStreamInferResponse)
    list(stream(iter([raw_request("plain", hidden=hidden)] * 3)))
    assert count() == (before[0] + 3, before[1])
