"""Mutated messages: a call of any bytes gets a status, soon, and the service goes on."""

import random

import grpc
import numpy as np
import pytest

from hsoftmax.service.grpc.messages import SERVICE, ModelInferResponse, ModelStreamInferResponse
from tests.service.conftest import HIDDEN

from .conftest import raw_request, typed_request

HIDDEN_ROWS = np.random.default_rng(4).normal(size=(2, HIDDEN)).astype(np.float32)
TARGETS, LABELS = np.int64([1, 2]), ["word1", "étoile"]
TIMEOUT_S = 10
# A fault of the service would be INTERNAL or UNKNOWN, and a hang DEADLINE_EXCEEDED.
EXPECTED = {
    grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}  # fmt: skip
MUTATIONS = 150


def with_parameters(request):
    request.id = "id"
    request.parameters["k"].int64_param = 3
    request.parameters["timeout"].int64_param = 1_000_000
    request.outputs.add(name="probs").parameters["classification"].int64_param = 2
    request.outputs.add(name="top_k_label")
    return request


SEEDS = [
    raw_request(hidden=HIDDEN_ROWS, target=TARGETS, row=TARGETS - 1),
    typed_request(hidden=HIDDEN_ROWS.astype(np.float64), target=LABELS),
    with_parameters(raw_request(hidden=HIDDEN_ROWS)),
    with_parameters(typed_request(hidden=HIDDEN_ROWS)),
]


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Change, remove, insert or repeat some bytes."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5))):
        start = draw.randrange(len(changed) + 1)
        end = min(len(changed), start + draw.choice((1, 1, 2, 8, 40)))
        part = changed[start:end]
        values = (0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256))
        replacement = draw.choice(
            [b"", part + part, bytes(draw.choice(values) for _ in part), b"\xff" * 9 + b"\x01"]
        )
        changed[start:end] = replacement
    return bytes(changed)


@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_mutated_requests_get_a_status(service, seed):
    draw = random.Random(seed)
    data = SEEDS[seed].SerializeToString()
    infer = service.unary(f"/{SERVICE}/ModelInfer", ModelInferResponse)
    calls = [infer.future(mutated(data, draw), timeout=TIMEOUT_S) for _ in range(MUTATIONS)]
    codes = [call.code() for call in calls]
    assert set(codes) <= EXPECTED
    assert grpc.StatusCode.INVALID_ARGUMENT in codes
    assert service.call("ModelInfer", SEEDS[seed]).model_name == "words"


def test_mutated_requests_of_a_stream_get_an_answer_each(service):
    draw = random.Random(9)
    seeds = [seed.SerializeToString() for seed in SEEDS]
    requests = [mutated(draw.choice(seeds), draw) for _ in range(MUTATIONS)]
    stream = service.stream(f"/{SERVICE}/ModelStreamInfer", ModelStreamInferResponse)
    answers = list(stream(iter(requests), timeout=3 * TIMEOUT_S))
    assert len(answers) == len(requests)
    assert not any("failed to answer" in answer.error_message for answer in answers)


@pytest.mark.parametrize(
    "name", ["ModelConfig", "ModelMetadata", "ModelReady", "ModelStatistics", "RepositoryIndex",
             "RepositoryModelLoad", "ServerMetadata"],
)  # fmt: skip
def test_random_bytes_get_a_status(service, name):
    draw = random.Random(name)
    call = service.unary(f"/{SERVICE}/{name}", ModelInferResponse)
    data = [mutated(b"\x0a\x05words\x12\x012\x1a\x02ab", draw) for _ in range(40)]
    codes = {call.future(one, timeout=TIMEOUT_S).code() for one in data}
    denied = {grpc.StatusCode.PERMISSION_DENIED}  # there is no admin key
    # The client cannot read these responses, which is its own INTERNAL.
    assert codes <= EXPECTED | denied | {grpc.StatusCode.INTERNAL}
