"""Builds bodies of the Open Inference Protocol and reads its answers, as its clients do."""

import json
from typing import Any

import numpy as np

from hsoftmax.service.inference.tensors.tensor import Tensor, decode_raw, encode_raw

INFER = "/v2/models/words/infer"
HEADER = "inference-header-content-length"
_DATATYPES = {
    "float16": "FP16", "float32": "FP32", "float64": "FP64", "int32": "INT32", "int64": "INT64",
}  # fmt: skip


def json_input(name: str, data: object, datatype: str | None = None) -> dict[str, Any]:
    """An input whose data is in the JSON; a list is of texts."""
    if isinstance(data, list):
        return {"name": name, "datatype": "BYTES", "shape": [len(data)], "data": data}
    array = np.asarray(data)
    datatype = datatype or _DATATYPES[array.dtype.name]
    fields = {"name": name, "datatype": datatype, "shape": list(array.shape)}
    return {**fields, "data": array.ravel().tolist()}


def binary_body(inputs: dict[str, object], **fields: Any) -> tuple[bytes, dict[str, str]]:
    """A body whose inputs are raw, and its headers."""
    listed, raw = [], b""
    for name, data in inputs.items():
        tensor = _tensor(name, data)
        content = encode_raw(tensor)
        size = {"binary_data_size": len(content)}
        listed.append({"name": name, "datatype": tensor.datatype, "shape": list(tensor.shape),
                       "parameters": size})  # fmt: skip
        raw += content
    head = json.dumps({"inputs": listed, **fields}).encode()
    return head + raw, {HEADER: str(len(head))}


def _tensor(name: str, data: object) -> Tensor:
    if isinstance(data, list):
        return Tensor(name, "BYTES", (len(data),), [text.encode() for text in data])
    array = np.asarray(data)
    return Tensor(name, _DATATYPES[array.dtype.name], array.shape, array)


def read_answer(response) -> dict[str, Any]:
    """The outputs by name: arrays, or lists of texts."""
    assert response.status_code == 200, response.text
    body = response.content
    length = int(response.headers.get(HEADER, len(body)))
    head, raw = json.loads(body[:length]), body[length:]
    outputs = {}
    for output in head["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            outputs[output["name"]] = _values(output)
            continue
        tensor = decode_raw(
            output["name"], output["datatype"], output["shape"], raw[:size], max_texts=10**6
        )
        raw = raw[size:]
        texts = isinstance(tensor.data, list)
        outputs[output["name"]] = [t.decode() for t in tensor.data] if texts else tensor.data
    assert not raw
    return outputs


def _values(output: dict[str, Any]) -> Any:
    if output["datatype"] == "BYTES":
        return output["data"]
    dtype = {"FP32": np.float32, "FP64": np.float64, "INT64": np.int64, "BOOL": bool}
    return np.array(output["data"], dtype[output["datatype"]]).reshape(output["shape"])
