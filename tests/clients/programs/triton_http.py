"""Uses Triton's HTTP clients, sync and asyncio. Arguments: the server's URL, and the admin key."""

import asyncio
import itertools
import sys

import ml_dtypes
import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from answers_of_v1 import (
    HIDDEN,
    ROWS_BY_DATATYPE,
    TARGETS,
    TARGETS_BY_DATATYPE,
    check_classes,
    check_top_k,
    target_answers,
    v1,
)
from tritonclient.utils import InferenceServerException

URL, ADMIN = sys.argv[1], {"Authorization": f"Bearer {sys.argv[2]}"}
ENCODINGS = (None, "gzip", "deflate")


def tensor(name: str, data: np.ndarray, datatype: str, binary: bool) -> triton.InferInput:
    given = triton.InferInput(name, list(data.shape), datatype)
    given.set_data_from_numpy(data, binary_data=binary)
    return given


def outputs(names: list[str], binary: bool) -> list[triton.InferRequestedOutput]:
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in names]


def cases():
    """Each input form, output form and compression, with the keywords of `infer`."""
    forms = itertools.product(
        ROWS_BY_DATATYPE, TARGETS_BY_DATATYPE, (True, False), (True, False), ENCODINGS, ENCODINGS
    )
    for (dtype, rows), (kind, target), raw_in, raw_out, packed_in, packed_out in forms:
        inputs = [tensor("hidden", rows, dtype, raw_in), tensor("target", target, kind, raw_in)]
        yield {
            "model_name": "words",
            "inputs": inputs,
            "outputs": outputs(["target_log_prob", "target_prob"], raw_out),
            "request_compression_algorithm": packed_in,
            "response_compression_algorithm": packed_out,
            "request_id": "r 1",
        }


def check_answer(result, log: np.ndarray, linear: np.ndarray) -> None:
    assert result.get_response()["id"] == "r 1"
    np.testing.assert_array_equal(result.as_numpy("target_log_prob"), log)
    np.testing.assert_array_equal(np.float32(result.as_numpy("target_prob")), linear)


def check_infer(client: triton.InferenceServerClient) -> None:
    log, linear = target_answers(URL)
    for case in cases():
        check_answer(client.infer(**case), log, linear)
    waiting = [client.async_infer(**case) for case in itertools.islice(cases(), 6)]
    for one in waiting:
        check_answer(one.get_result(), log, linear)


async def check_asyncio() -> None:
    log, linear = target_answers(URL)
    async with triton_aio.InferenceServerClient(URL) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("words", "1")
        assert (await client.get_model_metadata("words"))["name"] == "words"
        assert (await client.get_model_config("words"))["max_batch_size"] == 0
        for case in cases():
            check_answer(await client.infer(**case), log, linear)
        try:
            await client.infer("nonesuch", [])
        except InferenceServerException as error:
            assert "bundle 'nonesuch' is not served here" in str(error)
        else:
            raise AssertionError("expected an error")


def check_half_precision(client: triton.InferenceServerClient) -> None:
    """FP16 and BF16, raw: they give what their exact values in float32 give."""
    for datatype, dtype in (("FP16", np.float16), ("BF16", ml_dtypes.bfloat16)):
        half = HIDDEN.astype(dtype)
        rows = [tensor("hidden", half, datatype, True)]
        whole = [tensor("hidden", half.astype(np.float32), "FP32", True)]
        got, wanted = (client.infer("words", one, outputs=outputs(["log_probs"], True))
                       for one in (rows, whole))  # fmt: skip
        np.testing.assert_array_equal(got.as_numpy("log_probs"), wanted.as_numpy("log_probs"))


def check_likeliest(client: triton.InferenceServerClient) -> None:
    results = v1(URL, "top_k", k=3)["results"]
    rows = [tensor("hidden", HIDDEN, "FP32", True)]
    got = client.infer("words", rows, parameters={"k": 3}, priority=2, timeout=5_000_000)
    check_top_k(got, results)
    classes = triton.InferRequestedOutput("probs", class_count=2)
    answer = client.infer("words", rows, outputs=[classes]).as_numpy("probs")
    check_classes(answer, results)


def check_errors(client: triton.InferenceServerClient) -> None:
    hidden = tensor("hidden", HIDDEN, "FP32", True)
    for inputs, options, sentence in (
        ([hidden], {"outputs": outputs(["prob"], True)}, "outputs: expected some of target_log_"),
        ([hidden], {"parameters": {"kk": 3}}, "parameters: expected k, max_blocks"),
        ([tensor("hidden", HIDDEN[:, 1:].copy(), "FP32", True)], {}, "inputs: expected rows of 8"),
        ([hidden, tensor("target", TARGETS[:1] + 11, "INT64", True)], {}, "target: expected shape"),
        ([hidden], {"model_version": "9"}, "words: expected version 1 or 2, got '9'"),
    ):
        try:
            client.infer("words", inputs, **options)
        except InferenceServerException as error:
            assert sentence in error.message(), error.message()
        else:
            raise AssertionError(f"expected an error: {sentence}")


def check_management(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["name"] == "hsoftmax"
    names = {one["name"] for one in client.get_model_metadata("words")["outputs"]}
    config = client.get_model_config("words", "2")
    assert {one["name"] for one in config["output"]} == names
    assert {one["name"] for one in client.get_model_repository_index()} == {"plain", "words"}
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
    (before,) = client.get_inference_statistics("words", "2")["model_stats"]
    client.infer("words", [tensor("hidden", HIDDEN, "FP32", True)])
    (after,) = client.get_inference_statistics("words", "2")["model_stats"]
    assert after["inference_count"] == before["inference_count"] + len(HIDDEN)
    assert after["inference_stats"]["success"]["ns"] > before["inference_stats"]["success"]["ns"]
    assert len(client.get_inference_statistics()["model_stats"]) == 3


with triton.InferenceServerClient(URL) as sync_client:
    check_management(sync_client)
    check_infer(sync_client)
    check_half_precision(sync_client)
    check_likeliest(sync_client)
    check_errors(sync_client)
asyncio.run(check_asyncio())
print(f"{len(list(cases()))} forms")
