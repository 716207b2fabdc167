"""How likely is each cluster, whatever the target in it? The marginals of level 0."""

from hsoftmax.service.inference.cost import cluster_work
from hsoftmax.service.inference.operation import (
    MatrixResult,
    Operation,
    OperationResponse,
    Plan,
    Query,
)
from hsoftmax.service.inference.output_values import field, numbers
from hsoftmax.service.inference.validation import hidden
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.settings import Settings


class ClustersQuery(Query, frozen=True, kw_only=True):
    """Rows, and nothing besides."""


class ClustersAnswer(OperationResponse, kw_only=True, omit_defaults=True):
    """num_clusters numbers for each row."""

    probabilities: list[list[float | None]] | None = None
    log_probabilities: list[list[float | None]] | None = None


def plan(query: ClustersQuery, served: LoadedBundle, limits: Settings) -> Plan:
    """Level 0 for each row."""
    session = served.session("cluster_log_probs")
    states = hidden(query.inputs, served, limits)
    rows, log = len(states), query.log
    clusters = served.manifest.num_clusters or 0
    return Plan(
        session=session,
        feeds={"hidden": states},
        rows=rows,
        work=cluster_work(served, rows),
        values=rows * clusters,
        finish=lambda outputs: {field(log): numbers(outputs[0], log)},
        matrix=MatrixResult(field(log), log, clusters),
    )


CLUSTERS = Operation(
    name="clusters",
    summary="How likely each cluster is",
    query=ClustersQuery,
    answer=ClustersAnswer,
    example={"inputs": [[0.1, -0.2, 0.3]]},
    plan=plan,
    task=lambda body: "cluster_log_probs",
)
