"""A new operation is in gRPC as soon as it is one of the operations."""

from dataclasses import replace

import numpy as np

from hsoftmax.service.inference import operations
from hsoftmax.service.inference.operations.clusters import CLUSTERS

from .conftest import arrays, raw_request, serving_grpc

OUTPUTS = tuple(
    replace(output, name=f"planted_{output.name}") for output in CLUSTERS.tensors.outputs
)
PLANTED = replace(CLUSTERS, name="planted", tensors=replace(CLUSTERS.tensors, outputs=OUTPUTS))


def test_an_operation_that_is_added_appears_in_grpc(repository, hidden, monkeypatch):
    monkeypatch.setattr(operations, "OPERATIONS", (*operations.OPERATIONS, PLANTED))
    with serving_grpc(repository) as service:
        metadata = service.call("ModelMetadata", name="plain").outputs
        config = service.call("ModelConfig", name="plain").config.output
        for listed in (metadata, config):
            assert [one.name for one in listed][-2:] == [output.name for output in OUTPUTS]
        names = ("planted_cluster_probs", "cluster_probs")
        planted, own = (
            arrays(service.call("ModelInfer", raw_request("plain", name, hidden=hidden)))[name]
            for name in names
        )
        np.testing.assert_array_equal(planted, own)
