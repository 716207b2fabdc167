"""Answers a request of tensors with the operations of /v1: finds them by the outputs, runs them.

    InferRequest -> queries of operations -> plans -> graph calls in the engine -> InferResult

The REST endpoint and the gRPC service call `infer`.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec

from hsoftmax.service.codecs.json import error_message
from hsoftmax.service.engine import Engine, GraphResult
from hsoftmax.service.errors import InvalidQuery, ServiceError
from hsoftmax.service.http.request_context import RequestContext
from hsoftmax.service.http.request_options import RequestOptions
from hsoftmax.service.inference.graph_calls import (
    RunCall,
    record_call,
    record_failure,
    record_success,
)
from hsoftmax.service.inference.hidden_rows import with_hidden
from hsoftmax.service.inference.operation import Operation, Plan
from hsoftmax.service.inference.overflow import expect_no_overflow
from hsoftmax.service.inference.scoring_calls import build_plan_call
from hsoftmax.service.inference.texts import TextQueue
from hsoftmax.service.inference.validation import expect_values
from hsoftmax.service.metrics import Metrics
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.repository.repository import Repository
from hsoftmax.service.settings import Settings
from hsoftmax.service.statistics import Statistics

from .declaration import TaskResult
from .inputs import expect_known, read_rows
from .metadata import input_names
from .request import InferRequest, InferResult, ParameterValue, request_options
from .selection import Selection, expect_known_parameters, select_outputs
from .tensor import Tensor

_MAX_INLINE_VALUES = 20_000  # values that are converted in less than a millisecond
_BYTES_PER_VALUE = 12  # of one value as float32 and float64
_NOTHING_COMPUTED = GraphResult([])
_DEFAULT_OPTIONS = RequestOptions()

Tensors = Mapping[str, Tensor]


class InferServices(Protocol):
    """The components that answer a request; `AppContext` has them."""

    @property
    def settings(self) -> Settings: ...

    @property
    def repository(self) -> Repository: ...

    @property
    def engine(self) -> Engine: ...

    @property
    def metrics(self) -> Metrics: ...

    @property
    def statistics(self) -> Statistics: ...

    @property
    def texts(self) -> TextQueue: ...


class _Rows(msgspec.Struct):
    """The rows of a request, in the form of a query that has nothing else."""

    inputs: Any


class _Work(msgspec.Struct, frozen=True):
    """One operation of a request: what is selected from it, its query, and its plan."""

    selection: Selection
    query: Any
    plan: Plan


async def infer(
    request: InferRequest,
    services: InferServices,
    request_context: RequestContext,
    *,
    route: str,
    run_call: RunCall | None = None,
    options: RequestOptions = _DEFAULT_OPTIONS,
) -> InferResult:
    """Answer a request.

    Args:
        request_context: gets the bundle, the rows and the times
        route: the label of the metrics
        run_call: runs a graph call; the engine's own `run` by default
        options: timeout and priority where the request's parameters have none

    Raises:
        ServiceError: the request does not fit the bundle, or it could not be answered.
    """
    bundle = services.repository.find(request.model, request.version)
    request_context.set_model(bundle)
    try:
        result = await _answer(request, bundle, services, request_context, route, run_call, options)
    except ServiceError:
        record_failure(services.statistics, request_context)
        raise
    record_success(services.statistics, request_context)
    return result


async def _answer(
    request: InferRequest,
    bundle: LoadedBundle,
    services: InferServices,
    request_context: RequestContext,
    route: str,
    run_call: RunCall | None,
    options: RequestOptions,
) -> InferResult:
    selections = _select(request, bundle)
    request_context.expect_rows()
    for selection in selections:
        services.engine.admit(selection.task)
    options = request_options(request.parameters, options)
    run_call = run_call or services.engine.run
    tensors = await request.read_inputs()
    rows = await _read_hidden(
        tensors, bundle, services, selections, options, run_call, request_context
    )
    work = [_plan(one, rows, tensors, request, bundle, services.settings) for one in selections]
    request_context.set_rows(max(one.plan.rows for one in work))
    results = [await _run(one.plan, options, run_call) for one in work]
    for one, result in zip(work, results, strict=True):
        if one.plan.feeds:
            expect_no_overflow(one.plan, result.arrays)
    for one, result in zip(work, results, strict=True):
        if one.plan.feeds:
            record_call(one.plan, result, route, services.metrics, services.statistics,
                        request_context)  # fmt: skip
    outputs = await _read_outputs(work, results, bundle, services.engine)
    return InferResult(
        bundle.name, bundle.version, request.id, _in_order(outputs, request), _chosen(work)
    )


def _select(request: InferRequest, bundle: LoadedBundle) -> tuple[Selection, ...]:
    """Check the names in a request; return its operations. Raises InvalidQuery."""
    expect_known(request.input_names, input_names(bundle))
    expect_known_parameters(request.parameters, bundle)
    return select_outputs(request.input_names, request.outputs, bundle)


async def _read_hidden(
    tensors: Tensors,
    bundle: LoadedBundle,
    services: InferServices,
    selections: Sequence[Selection],
    options: RequestOptions,
    run_call: RunCall,
    request_context: RequestContext,
) -> Any:  # noqa: ANN401
    """Return the hidden states of the rows; None for a bundle without hidden states."""
    if not bundle.hidden_size:
        return None
    rows = await with_hidden(
        _Rows(read_rows(tensors, bundle)),
        bundle,
        services.settings,
        services.texts,
        options,
        run_call,
        request_context,
        isolated=any(one.operation.isolated for one in selections),
    )
    return rows.inputs


def _plan(
    selection: Selection,
    rows: Any,  # noqa: ANN401
    tensors: Tensors,
    request: InferRequest,
    bundle: LoadedBundle,
    settings: Settings,
) -> _Work:
    query = _query(selection, rows, tensors, request)
    plan = selection.operation.plan(query, bundle, settings)
    expect_values(plan.rows, -(-plan.values // max(plan.rows, 1)), settings)
    return _Work(selection, query, plan)


def _query(
    selection: Selection,
    rows: Any,  # noqa: ANN401
    tensors: Tensors,
    request: InferRequest,
) -> Any:  # noqa: ANN401
    """Build the query of an operation from the rows, its input tensors and its parameters."""
    operation = selection.operation
    fields = {one.field: one.value(tensors) for one in selection.inputs if one.field}
    if rows is not None:
        fields["inputs"] = rows
    given = {**request.parameters, **selection.parameters}
    parameters = {name: given[name] for name in selection.tensors.parameters if name in given}
    return _build_query(operation, fields, parameters)


def _build_query(
    operation: Operation, fields: Mapping[str, Any], parameters: Mapping[str, ParameterValue]
) -> Any:  # noqa: ANN401
    placeholders: dict[str, object] = {name: [] for name in fields}
    try:
        query = msgspec.convert({**placeholders, **parameters}, operation.query)
    except msgspec.ValidationError as error:
        raise InvalidQuery(f"parameters.{error_message(str(error), operation.query)}") from None
    return msgspec.structs.replace(query, **fields)


async def _run(plan: Plan, options: RequestOptions, run_call: RunCall) -> GraphResult:
    if not plan.feeds:
        return _NOTHING_COMPUTED
    return await run_call(build_plan_call(plan, options))


async def _read_outputs(
    work: Sequence[_Work], results: Sequence[GraphResult], bundle: LoadedBundle, engine: Engine
) -> list[Tensor]:
    """Return the selected tensors; many numbers are converted in turn, beside the event loop."""
    read = partial(_tensors, work, results, bundle)
    values = sum(one.plan.values for one in work)
    if values <= _MAX_INLINE_VALUES:
        return read()
    return await engine.run_in_idle(read, num_bytes=_BYTES_PER_VALUE * values)


def _tensors(
    work: Iterable[_Work], results: Iterable[GraphResult], bundle: LoadedBundle
) -> list[Tensor]:
    found = []
    for one, result in zip(work, results, strict=True):
        names = one.plan.session.output_names if one.plan.feeds else []
        outputs = dict(zip(names, result.arrays, strict=True))
        task_result = TaskResult(one.query, bundle, outputs)
        found += [output.tensor(task_result, one.plan.rows) for output in one.selection.outputs]
    return found


def _in_order(outputs: list[Tensor], request: InferRequest) -> tuple[Tensor, ...]:
    """Return the outputs in the order in which the request names them."""
    named = {output.name: output for output in outputs}
    return tuple(named[one.name] for one in request.outputs) or tuple(outputs)


def _chosen(work: Iterable[_Work]) -> dict[str, ParameterValue]:
    return {name: value for one in work for name, value in one.plan.chosen.items()}
