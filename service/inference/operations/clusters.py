"""The operation `clusters`: the probability of each cluster, the marginals of level 0."""

from hsoftmax.service.inference.cost import cluster_cost
from hsoftmax.service.inference.operation import (
    MatrixResult,
    Operation,
    OperationResponse,
    Plan,
    Query,
)
from hsoftmax.service.inference.output_values import field_name, to_values
from hsoftmax.service.inference.tensors.declaration import (
    OperationTensors,
    OutputTensor,
    finite_log_probs,
    probabilities,
)
from hsoftmax.service.inference.validation import hidden_states
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.settings import Settings


class ClustersQuery(Query, frozen=True, kw_only=True):
    """The input rows; there are no other fields."""


class ClustersAnswer(OperationResponse, kw_only=True, omit_defaults=True):
    """num_clusters numbers for each row."""

    probabilities: list[list[float | None]] | None = None
    log_probabilities: list[list[float | None]] | None = None


def plan(query: ClustersQuery, bundle: LoadedBundle, settings: Settings) -> Plan:
    """Plan level 0 for each row."""
    session = bundle.session("cluster_log_probs")
    states = hidden_states(query.inputs, bundle, settings)
    rows, log = len(states), query.log
    clusters = bundle.manifest.num_clusters or 0
    return Plan(
        session=session,
        feeds={"hidden": states},
        rows=rows,
        cost=cluster_cost(bundle, rows),
        values=rows * clusters,
        finish=lambda outputs: {field_name(log): to_values(outputs[0], log, bundle.max_log_prob)},
        matrix=MatrixResult(field_name(log), log, clusters, bundle.max_log_prob),
    )


_SHAPE = ("rows", "num_clusters")

TENSORS = OperationTensors(
    outputs=(
        OutputTensor("cluster_log_probs", "FP32", _SHAPE, "cluster_log_probs",
                     lambda result: finite_log_probs(result.outputs["log_probs"], result.bundle)),
        OutputTensor("cluster_probs", "FP64", _SHAPE, "cluster_log_probs",
                     lambda result: probabilities(result.outputs["log_probs"], result.bundle)),
    ),
)  # fmt: skip

CLUSTERS = Operation(
    name="clusters",
    summary="Probabilities of the clusters",
    query=ClustersQuery,
    response=ClustersAnswer,
    example={"inputs": [[0.1, -0.2, 0.3]]},
    plan=plan,
    guess_task=lambda body: "cluster_log_probs",
    tensors=TENSORS,
)
