"""Serves the graph with BentoML."""

import bentoml
import graph


@bentoml.service(workers=1)
class Probabilities:
    def __init__(self) -> None:
        self.session = graph.load()

    @bentoml.api
    def probabilities(self, inputs: list[list[float]], targets: list[int]) -> list[float]:
        return graph.run(self.session, inputs, targets).tolist()
