"""Serves the graph with Triton's Python backend, which does not read PYTHONPATH itself."""

import os
import sys

sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)

import graph  # noqa: E402
import numpy as np  # noqa: E402
import triton_python_backend_utils as backend  # noqa: E402


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self.session = graph.load()

    def execute(self, requests: list) -> list:
        return [self._answer(request) for request in requests]

    def _answer(self, request: object) -> object:
        hidden, target = (
            backend.get_input_tensor_by_name(request, name).as_numpy()
            for name in ("hidden", "target")
        )
        answer = graph.run(self.session, hidden, target).astype(np.float64)
        output = backend.Tensor("target_prob", answer)
        return backend.InferenceResponse(output_tensors=[output])
