"""Builds bodies of the Open Inference Protocol and reads its answers, as its clients do."""

import json
from typing import Any

import numpy as np

from tests.service.raw_tensors import array_of, datatype_and_shape, raw_bytes

INFER = "/v2/models/words/infer"
HEADER = "inference-header-content-length"


def json_input(name: str, data: object, datatype: str | None = None) -> dict[str, Any]:
    """An input whose data is in the JSON; a list of texts, or an array."""
    is_texts = isinstance(data, list) and all(isinstance(one, str) for one in data)
    value = data if is_texts else np.asarray(data)
    found, shape = datatype_and_shape(value)
    elements = value if isinstance(value, list) else value.ravel().tolist()
    return {"name": name, "datatype": datatype or found, "shape": shape, "data": elements}


def binary_body(inputs: dict[str, Any], **fields: Any) -> tuple[bytes, dict[str, str]]:
    """A body whose inputs are raw, and its headers."""
    listed, raw = [], b""
    for name, value in inputs.items():
        datatype, shape = datatype_and_shape(value)
        content = raw_bytes(value)
        listed.append({"name": name, "datatype": datatype, "shape": shape,
                       "parameters": {"binary_data_size": len(content)}})  # fmt: skip
        raw += content
    head = json.dumps({"inputs": listed, **fields}).encode()
    return head + raw, {HEADER: str(len(head))}


def read_answer(response) -> dict[str, Any]:
    """The outputs by name: arrays, or flat lists of texts."""
    assert response.status_code == 200, response.text
    body = response.content
    length = int(response.headers.get(HEADER, len(body)))
    head, raw = json.loads(body[:length]), body[length:]
    outputs = {}
    for output in head["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        content = output["data"] if size is None else raw[:size]
        raw = raw[size or 0 :]
        array = array_of(output["datatype"], output["shape"], content)
        is_texts = output["datatype"] == "BYTES"
        outputs[output["name"]] = array.ravel().tolist() if is_texts else array
    assert not raw
    return outputs
