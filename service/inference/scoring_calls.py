"""Rows that the scoring core asks a graph about, as one call of the engine."""

from hsoftmax.runtime.sessions import Feeds
from hsoftmax.scoring import GraphRequest
from hsoftmax.service.engine import GraphCall
from hsoftmax.service.http.request_options import RequestOptions
from hsoftmax.service.repository.loaded_bundle import LoadedBundle

from .cost import full_work, path_work


def chunk_call(
    asked: GraphRequest,
    served: LoadedBundle,
    feeds: Feeds,
    options: RequestOptions,
    *,
    apart: bool = False,
) -> GraphCall:
    """One run of the bundle's graph on these feeds, with what it costs."""
    work, values = cost_of(asked, served)
    return GraphCall(
        session=served.session(asked.graph),
        feeds=feeds,
        rows=len(asked.hidden),
        work=work,
        values=values,
        priority=options.priority,
        timeout=options.timeout,
        apart=apart,
    )


def cost_of(asked: GraphRequest, served: LoadedBundle) -> tuple[int, int]:
    """(multiply-adds, numbers in the answer), about."""
    rows, task = len(asked.hidden), asked.task
    match asked.graph:
        case "target_log_prob":
            return path_work(served, len(asked.row)), len(asked.row)
        case "sample":
            return path_work(served, rows * task.num_samples), rows * task.num_samples
        case "top_k":
            full = full_work(served, rows)
            return min(full, path_work(served, rows * task.max_blocks) or full), rows * task.k
        case _:
            return full_work(served, rows), rows * served.num_targets
