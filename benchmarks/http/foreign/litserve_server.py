"""Serves the graph with LitServe."""

import sys

import graph
import litserve


class Probabilities(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.session = graph.load()

    def decode_request(self, request: dict) -> dict:
        return request

    def predict(self, query: dict) -> list:
        return graph.run(self.session, query["inputs"], query["targets"]).tolist()

    def encode_response(self, output: list) -> dict:
        return {"probabilities": output}


if __name__ == "__main__":
    server = litserve.LitServer(Probabilities(), accelerator="cpu")
    server.run(port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False)
