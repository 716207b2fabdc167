"""The requests of Triton's perf_analyzer, byte for byte, and what it reads from each answer.

It asks in this order: metadata, configuration, server, statistics, and then `infer` many times. The
tool itself needs a newer C library than many systems have.
"""

import json

import numpy as np

from tests.service.conftest import HIDDEN

from .requests import HEADER

ROW = np.linspace(-1, 1, HIDDEN, dtype=np.float32)
HEAD = (
    b'{"id":"","inputs":[{"name":"hidden","shape":[1,8],"datatype":"FP32","parameters":'
    b'{"binary_data_size":32}}],"outputs":[{"name":"top_k_target","parameters":{"binary_data":'
    b'true}},{"name":"top_k_prob","parameters":{"binary_data":true}}]}'
)
JSON = (
    b'{"id":"","inputs":[{"name":"hidden","shape":[1,8],"datatype":"FP32","data":['
    b'%s]}],"outputs":[{"name":"top_k_target","parameters":{"binary_data":false}}]}'
)
_STATISTICS = ("success", "queue", "compute_input", "compute_infer", "compute_output",
               "cache_hit", "cache_miss")  # fmt: skip


def test_its_raw_requests_are_answered(client):
    body = HEAD + ROW.tobytes()
    assert len(ROW.tobytes()) == 32
    headers = {HEADER: str(len(HEAD)), "content-type": "application/octet-stream"}
    response = client.post("/v2/models/words/infer", content=body, headers=headers)
    assert response.status_code == 200, response.text
    length = int(response.headers[HEADER])
    head, raw = json.loads(response.content[:length]), response.content[length:]
    sizes = [one["parameters"]["binary_data_size"] for one in head["outputs"]]
    assert sum(sizes) == len(raw)
    results = client.post("/v1/models/words/top_k", json={"inputs": [ROW.tolist()]})
    targets = results.json()["results"][0]["targets"]
    assert np.frombuffer(raw[: sizes[0]], "<i8").tolist() == targets


def test_its_json_requests_have_a_header_of_the_whole_length(client):
    body = JSON % ",".join(map(str, ROW.tolist())).encode()
    headers = {HEADER: str(len(body)), "content-type": "application/json"}
    response = client.post("/v2/models/words/infer", content=body, headers=headers)
    assert response.status_code == 200, response.text
    assert HEADER not in response.headers


def test_its_json_of_too_few_numbers_is_an_error(client):
    """With `--shape` it sends the shape of a batch, and the numbers of one row."""
    body = JSON.replace(b"[1,8]", b"[2,8]") % ",".join(map(str, ROW.tolist())).encode()
    response = client.post("/v2/models/words/infer", content=body)
    assert response.status_code == 400
    assert "hidden: expected 16 elements of shape [2, 8], got 8" in response.json()["error"]


def test_what_it_reads_before_it_measures(client):
    metadata = client.get("/v2/models/words").json()
    config = client.get("/v2/models/words/config").json()
    assert config["max_batch_size"] == 0  # it takes shapes as they are
    required = [one["name"] for one in config["input"] if not one["optional"]]
    assert required == ["hidden"]  # it makes up data for these
    for kind in ("input", "output"):
        listed = {one["name"] for one in metadata[f"{kind}s"]}
        assert {one["name"] for one in config[kind]} == listed
    assert "statistics" in client.get("/v2").json()["extensions"]
    (entry, _) = client.get("/v2/models/words/stats").json()["model_stats"]
    assert (entry["name"], entry["version"]) == ("words", "1")
    for counted in (entry["inference_count"], entry["execution_count"]):
        assert type(counted) is int
    for name in _STATISTICS:
        part = entry["inference_stats"][name]
        assert all(type(part[one]) is int and part[one] >= 0 for one in ("count", "ns"))
