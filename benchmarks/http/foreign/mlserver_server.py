"""Serves the graph with MLServer."""

import graph
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Probabilities(MLModel):
    async def load(self) -> bool:
        self.session = graph.load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        inputs, targets = (NumpyCodec.decode_input(one) for one in payload.inputs)
        answer = graph.run(self.session, inputs, targets.reshape(-1))
        output = NumpyCodec.encode_output("probabilities", answer)
        return InferenceResponse(model_name=self.name, outputs=[output])
