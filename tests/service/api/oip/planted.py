"""Adds an operation before the service is imported, and prints where it appears. See the test.

Arguments: the folder of a repository.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from hsoftmax.service.inference import operations
from hsoftmax.service.inference.operations.clusters import CLUSTERS

OUTPUTS = tuple(
    replace(output, name=f"planted_{output.name}") for output in CLUSTERS.tensors.outputs
)
PLANTED = replace(CLUSTERS, name="planted", tensors=replace(CLUSTERS.tensors, outputs=OUTPUTS))
operations.OPERATIONS = (*operations.OPERATIONS, PLANTED)

from starlette.testclient import TestClient  # noqa: E402

from hsoftmax.service import Settings, create_app  # noqa: E402
from hsoftmax.service.context import context_of  # noqa: E402
from hsoftmax.service.logging import json_log  # noqa: E402

ROW = [0.5] * 8
TENSORS = {
    "inputs": [{"name": "hidden", "shape": [1, 8], "datatype": "FP32", "data": ROW}],
    "outputs": [{"name": "planted_cluster_probs"}],
}


def main() -> None:
    settings = Settings(repository=Path(sys.argv[1]), threads=1, watch=False)
    app = create_app(settings, log=json_log("error"))
    context_of(app).load()
    client = TestClient(app)
    v1 = client.post("/v1/models/words/planted", json={"inputs": [ROW]}).json()
    v2 = client.post("/v2/models/words/infer", json=TENSORS).json()
    metadata = client.get("/v2/models/words").json()
    config = client.get("/v2/models/words/config").json()
    listed = {
        "v1": v1["probabilities"][0],
        "v2": v2["outputs"][0]["data"],
        "metadata": [one["name"] for one in metadata["outputs"]],
        "config": [one["name"] for one in config["output"]],
        "openapi": list(app.api.openapi()["paths"]),
    }
    print(json.dumps(listed))
    context_of(app).engine.close()


main()
