"""Serves the graph with PyTriton, whose Triton asks this process. Arguments: the two ports."""

import sys

import graph
import numpy as np
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

session = graph.load()


def infer(requests: list) -> list:
    answers = [graph.run(session, one["hidden"], one["target"]) for one in requests]
    return [{"target_prob": answer.astype(np.float64)} for answer in answers]


http_port, grpc_port = map(int, sys.argv[1:])
config = TritonConfig(
    http_address="127.0.0.1",
    http_port=http_port,
    grpc_address="127.0.0.1",
    grpc_port=grpc_port,
    allow_metrics=False,
)
with Triton(config=config) as triton:
    triton.bind(
        model_name="random",
        infer_func=infer,
        inputs=[
            Tensor(name="hidden", dtype=np.float32, shape=(-1, -1)),
            Tensor(name="target", dtype=np.int64, shape=(-1,)),
        ],
        outputs=[Tensor(name="target_prob", dtype=np.float64, shape=(-1,))],
        config=ModelConfig(batching=False),
    )
    triton.serve()
