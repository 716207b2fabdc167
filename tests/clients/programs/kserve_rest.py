"""Uses KServe's REST client, protocol v2 and v1. Argument: the server's URL."""

import asyncio
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

BASE = f"http://{sys.argv[1]}"
ROWS = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)


def request(binary: bool) -> InferRequest:
    hidden = InferInput("hidden", list(ROWS.shape), "FP32")
    hidden.set_data_from_numpy(ROWS, binary_data=binary)
    wanted = [RequestedOutput("top_k_target", {"binary_data": binary}),
              RequestedOutput("top_k_prob", {"binary_data": binary})]  # fmt: skip
    return InferRequest("words", [hidden], request_id="7", parameters={"k": 2},
                        request_outputs=wanted)  # fmt: skip


async def main() -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=1, timeout=30))
    assert await client.is_server_live(BASE)
    assert await client.is_server_ready(BASE)
    assert await client.is_model_ready(BASE, "words")
    query = {"inputs": ROWS.tolist(), "k": 2}
    async with httpx.AsyncClient() as plain:
        v1 = (await plain.post(f"{BASE}/v1/models/words/top_k", json=query)).json()["results"]
    for binary in (True, False):
        answer = await client.infer(BASE, request(binary), model_name="words")
        assert (answer.model_name, answer.id) == ("words", "7")  # it drops the version
        read = {output.name: output.as_numpy() for output in answer.outputs}
        assert read["top_k_target"].tolist() == [one["targets"] for one in v1]
        np.testing.assert_allclose(
            read["top_k_prob"], [one["probabilities"] for one in v1], rtol=1e-6
        )
    wrong = request(True)
    wrong.parameters = {"kk": 1}
    try:
        await client.infer(BASE, wrong, model_name="words")
    except httpx.HTTPStatusError as error:
        assert "parameters: expected k" in str(error), str(error)
    else:
        raise AssertionError("expected an error")
    await client.close()


asyncio.run(main())
print("done")
