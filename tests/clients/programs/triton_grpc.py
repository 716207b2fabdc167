"""Uses Triton's gRPC clients: sync, asyncio and streaming.

Arguments: the server's gRPC address, its URL, the admin key, and the descriptor of its messages.
"""

import asyncio
import itertools
import queue
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import same_messages
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from answers_of_v1 import (
    HIDDEN,
    ROWS_BY_DATATYPE,
    TARGETS_BY_DATATYPE,
    check_classes,
    check_top_k,
    target_answers,
    v1,
)
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

ADDRESS, URL, ADMIN = sys.argv[1], sys.argv[2], {"authorization": f"Bearer {sys.argv[3]}"}
DESCRIPTOR = Path(sys.argv[4])
NAMES = ["target_log_prob", "target_prob"]
FIELDS = {"FP32": "fp32_contents", "FP64": "fp64_contents", "INT32": "int_contents",
          "INT64": "int64_contents", "BYTES": "bytes_contents"}  # fmt: skip


def tensor(name: str, data: np.ndarray, datatype: str) -> triton.InferInput:
    given = triton.InferInput(name, list(data.shape), datatype)
    given.set_data_from_numpy(data)
    return given


def tensors():
    """Each datatype of the rows with each of the targets: name, array, datatype."""
    for (dtype, rows), (kind, target) in itertools.product(ROWS_BY_DATATYPE, TARGETS_BY_DATATYPE):
        yield [("hidden", rows, dtype), ("target", target, kind)]


def cases():
    """The keywords of `infer` for each datatype and compression; this client sends raw tensors."""
    for inputs, packed in itertools.product(tensors(), (None, "gzip", "deflate")):
        yield {
            "model_name": "words",
            "inputs": [tensor(name, data, datatype) for name, data, datatype in inputs],
            "outputs": [triton.InferRequestedOutput(name) for name in NAMES],
            "compression_algorithm": packed,
            "request_id": "r 1",
        }


def typed_requests():
    """The requests with typed contents, as clients build them from the messages."""
    for inputs in tensors():
        request = service_pb2.ModelInferRequest(model_name="words", id="r 1")
        for name, data, datatype in inputs:
            one = request.inputs.add(name=name, datatype=datatype, shape=data.shape)
            elements = data.ravel().tolist()
            if datatype == "BYTES":
                elements = [text.encode() for text in elements]
            getattr(one.contents, FIELDS[datatype]).extend(elements)
        yield request


def check_answer(result, log: np.ndarray, linear: np.ndarray) -> None:
    assert result.get_response().id == "r 1"
    got = result.as_numpy("target_log_prob")
    np.testing.assert_array_equal(got, log)
    np.testing.assert_array_equal(np.float32(result.as_numpy("target_prob")), linear)


def check_infer(client: triton.InferenceServerClient) -> None:
    log, linear = target_answers(URL)
    for case in cases():
        check_answer(client.infer(**case), log, linear)
    for request in typed_requests():
        response = client._client_stub.ModelInfer(request)
        assert not response.raw_output_contents
        for output, wanted in zip(response.outputs, (log, linear), strict=True):
            got = getattr(output.contents, FIELDS[output.datatype])
            np.testing.assert_array_equal(np.float32(got), wanted.ravel())
    answers: queue.Queue = queue.Queue()
    for case in itertools.islice(cases(), 6):
        client.async_infer(callback=lambda result, error: answers.put((result, error)), **case)
    for _ in range(6):
        result, error = answers.get(timeout=30)
        assert error is None, error
        check_answer(result, log, linear)


def check_stream(client: triton.InferenceServerClient) -> None:
    log, linear = target_answers(URL)
    answers: queue.Queue = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    forms = [{key: value for key, value in case.items() if key != "compression_algorithm"}
             for case in itertools.islice(cases(), 0, None, 3)]  # fmt: skip
    for case in (*forms, {**forms[0], "model_name": "nonesuch"}, forms[1]):
        client.async_stream_infer(enable_empty_final_response=True, **case)
    for _ in forms:
        result, error = answers.get(timeout=30)
        assert error is None, error
        assert result.get_response().parameters["triton_final_response"].bool_param
        check_answer(result, log, linear)
    result, error = answers.get(timeout=30)
    assert isinstance(error, InferenceServerException)
    assert "bundle 'nonesuch' is not served here" in str(error)
    check_answer(answers.get(timeout=30)[0], log, linear)
    client.stop_stream()


async def check_asyncio() -> None:
    log, linear = target_answers(URL)
    async with triton_aio.InferenceServerClient(ADDRESS) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("words", "1")
        assert (await client.get_model_metadata("words")).name == "words"
        assert (await client.get_model_config("words")).config.max_batch_size == 0
        for case in cases():
            check_answer(await client.infer(**case), log, linear)
        forms = [{key: value for key, value in case.items() if key != "compression_algorithm"}
                 for case in itertools.islice(cases(), 0, None, 3)]  # fmt: skip

        async def requests():
            for case in forms:
                yield case

        got = [one async for one in client.stream_infer(requests())]
        assert len(got) == len(forms)
        for result, error in got:
            assert error is None, error
            check_answer(result, log, linear)
        try:
            await client.infer("nonesuch", [tensor("hidden", HIDDEN, "FP32")])
        except InferenceServerException as error:
            assert "bundle 'nonesuch' is not served here" in str(error)
        else:
            raise AssertionError("expected an error")


def check_half_precision(client: triton.InferenceServerClient) -> None:
    """FP16 and BF16: they give what their exact values in float32 give."""
    wanted = [triton.InferRequestedOutput("log_probs")]
    for datatype, dtype in (("FP16", np.float16), ("BF16", ml_dtypes.bfloat16)):
        half = HIDDEN.astype(dtype)
        rows, whole = ([tensor("hidden", half, datatype)],
                       [tensor("hidden", half.astype(np.float32), "FP32")])  # fmt: skip
        answers = [client.infer("words", one, outputs=wanted) for one in (rows, whole)]
        np.testing.assert_array_equal(*(one.as_numpy("log_probs") for one in answers))


def check_likeliest(client: triton.InferenceServerClient) -> None:
    results = v1(URL, "top_k", k=3)["results"]
    rows = [tensor("hidden", HIDDEN, "FP32")]
    got = client.infer("words", rows, parameters={"k": 3}, priority=2, timeout=5_000_000)
    check_top_k(got, results)
    classes = [triton.InferRequestedOutput("probs", class_count=2)]
    answer = client.infer("words", rows, outputs=classes).as_numpy("probs")
    check_classes(answer, results)


def check_errors(client: triton.InferenceServerClient) -> None:
    hidden = tensor("hidden", HIDDEN, "FP32")
    wrong_output = {"outputs": [triton.InferRequestedOutput("prob")]}
    for inputs, options, status, sentence in (
        ([hidden], wrong_output, "INVALID_ARGUMENT", "outputs: expected some of target_log_"),
        ([hidden], {"parameters": {"kk": 3}}, "INVALID_ARGUMENT", "parameters: expected k, max_"),
        ([tensor("hidden", HIDDEN[:, 1:].copy(), "FP32")], {}, "INVALID_ARGUMENT",
         "inputs: expected rows of 8"),
        ([hidden], {"model_version": "9"}, "NOT_FOUND", "words: expected version 1 or 2, got '9'"),
    ):  # fmt: skip
        try:
            client.infer("words", inputs, **options)
        except InferenceServerException as error:
            assert error.status() == f"StatusCode.{status}", error.status()
            assert sentence in error.message(), error.message()
        else:
            raise AssertionError(f"expected an error: {sentence}")


def check_management(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata().name == "hsoftmax"
    names = {one.name for one in client.get_model_metadata("words").outputs}
    config = client.get_model_config("words", "2").config
    assert {one.name for one in config.output} == names
    index = client.get_model_repository_index().models
    assert {(one.name, one.state) for one in index} == {("plain", "READY"), ("words", "READY")}
    client.unload_model("plain", headers=ADMIN)
    assert not client.is_model_ready("plain")
    client.load_model("plain", headers=ADMIN)
    assert client.is_model_ready("plain")
    try:
        client.load_model("plain")
    except InferenceServerException as error:
        assert "key: expected `Authorization: Bearer <key>`, got none" in str(error)
    else:
        raise AssertionError("expected an error")
    (before,) = client.get_inference_statistics("words", "2").model_stats
    client.infer("words", [tensor("hidden", HIDDEN, "FP32")])
    (after,) = client.get_inference_statistics("words", "2").model_stats
    assert after.inference_count == before.inference_count + len(HIDDEN)
    assert after.inference_stats.success.ns > before.inference_stats.success.ns
    assert len(client.get_inference_statistics().model_stats) == 3
    try:
        client.get_trace_settings("words")
    except InferenceServerException as error:
        assert error.status() == "StatusCode.UNIMPLEMENTED"
    else:
        raise AssertionError("expected an error")


same = same_messages.check(DESCRIPTOR, [service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR])
with triton.InferenceServerClient(ADDRESS) as sync_client:
    check_management(sync_client)
    check_infer(sync_client)
    check_stream(sync_client)
    check_half_precision(sync_client)
    check_likeliest(sync_client)
    check_errors(sync_client)
asyncio.run(check_asyncio())
print(f"{same} fields, {len(list(cases())) + len(list(typed_requests()))} forms")
