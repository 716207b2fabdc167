"""Builds engine calls: from the graph requests of the scoring core, and from operations' plans."""

from hsoftmax.runtime.sessions import Feeds
from hsoftmax.scoring import GraphRequest
from hsoftmax.scoring.task import k_of
from hsoftmax.service.engine import GraphCall
from hsoftmax.service.http.request_options import RequestOptions
from hsoftmax.service.repository.loaded_bundle import LoadedBundle

from .cost import call_bytes, full_cost, path_cost, top_k_cost
from .operation import Plan


def build_graph_call(
    request: GraphRequest,
    bundle: LoadedBundle,
    feeds: Feeds,
    options: RequestOptions,
    *,
    isolated: bool = False,
) -> GraphCall:
    """The call that runs the bundle's graph on these feeds, with its estimated cost."""
    cost, values = _estimate(request, bundle)
    return GraphCall(
        session=bundle.session(request.graph),
        feeds=feeds,
        rows=len(request.hidden),
        cost=cost,
        values=values,
        num_bytes=call_bytes(feeds, values),
        priority=options.priority,
        timeout=options.timeout,
        isolated=isolated,
    )


def build_plan_call(plan: Plan, options: RequestOptions, *, isolated: bool = False) -> GraphCall:
    """The call that a plan describes, without the plan's extra calls."""
    feeds = plan.feeds or {}
    return GraphCall(
        session=plan.session,
        feeds=feeds,
        rows=plan.rows,
        cost=plan.cost,
        values=plan.values,
        num_bytes=call_bytes(feeds, plan.values),
        priority=options.priority,
        timeout=options.timeout,
        isolated=isolated or plan.isolated,
    )


def _estimate(request: GraphRequest, bundle: LoadedBundle) -> tuple[int, int]:
    """The request's multiply-adds and the numbers in its outputs."""
    rows, task = len(request.hidden), request.task
    match request.graph:
        case "target_log_prob":
            return path_cost(bundle, len(request.row)), len(request.row)
        case "sample":
            return path_cost(bundle, rows * task.num_samples), rows * task.num_samples
        case "top_k":
            return top_k_cost(bundle, rows, task.max_blocks), rows * k_of(task, bundle.bundle_info)
        case _:
            return full_cost(bundle, rows), rows * bundle.num_targets
