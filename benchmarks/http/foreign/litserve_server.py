"""The graph behind LitServe."""

import sys

import graph
import litserve


class Probabilities(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.session = graph.load()

    def decode_request(self, request: dict) -> dict:
        return request

    def predict(self, asked: dict) -> list:
        return graph.ask(self.session, asked["inputs"], asked["targets"]).tolist()

    def encode_response(self, output: list) -> dict:
        return {"probabilities": output}


if __name__ == "__main__":
    server = litserve.LitServer(Probabilities(), accelerator="cpu")
    server.run(port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False)
