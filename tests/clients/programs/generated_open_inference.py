"""Uses the client that is generated from the protocol's specification. Argument: the URL.

It reads every answer with the types of the specification.
"""

import sys

import httpx
from open_inference.openapi.client import OpenInferenceClient
from open_inference.openapi.core.api_error import ApiError
from open_inference.openapi.types import InferenceRequest, RequestInput, TensorData

URL = sys.argv[1]
ROW = [0.5, -0.25, 1.0, 0.0, 0.5, -0.25, 1.0, 0.0]

client = OpenInferenceClient(base_url=f"http://{URL}", httpx_client=httpx.Client(timeout=30))
client.check_server_liveness()
client.check_server_readiness()
server = client.read_server_metadata()
assert (server.name, "binary_tensor_data" in server.extensions) == ("hsoftmax", True)
client.check_model_readiness("words")
client.check_model_version_readiness("words", "1")
for model in (client.read_model_metadata("words"),
              client.read_model_version_metadata("words", "2")):  # fmt: skip
    assert (model.name, model.platform, model.versions) == ("words", "hsoftmax", ["1", "2"])
    assert model.inputs[0].name == "hidden"
rows = RequestInput(name="hidden", shape=[1, 8], datatype="FP32",
                    data=TensorData.parse_obj(ROW))  # fmt: skip
targets = RequestInput(name="target", shape=[1, 2], datatype="INT64",
                       data=TensorData.parse_obj([3, 4]))  # fmt: skip
request = InferenceRequest(id="7", inputs=[rows, targets])
for answer in (client.model_infer("words", request=request),
               client.model_version_infer("words", "2", request=request)):  # fmt: skip
    assert (answer.model_name, answer.model_version, answer.id) == ("words", "2", "7")
    named = {output.name: output for output in answer.outputs}
    assert named["target_prob"].shape == [1, 2]
    assert all(0 < value < 1 for value in named["target_prob"].data.__root__)
try:
    client.read_model_metadata("nonesuch")
except ApiError as error:
    assert "bundle 'nonesuch' is not served here" in str(error.body)
else:
    raise AssertionError("expected an error")
print("done")
