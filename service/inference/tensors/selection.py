"""Finds the operations that give the outputs of a request, by what the operations declare."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from hsoftmax.service.errors import InvalidQuery
from hsoftmax.service.inference import operations
from hsoftmax.service.inference.operation import Operation
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.suggestions import did_you_mean

from .datatypes import BYTES
from .declaration import InputTensor, OperationTensors, OutputTensor, TaskResult
from .request import (
    OPTION_PARAMETERS,
    ParameterValue,
    RequestedOutput,
    expect_distinct,
    is_ignored,
)
from .tensor import Tensor, TensorData


class SelectedOutput(msgspec.Struct, frozen=True):
    """One output of a request, and how it is read from the result of its operation."""

    name: str
    datatype: str
    rank: int
    read: Callable[[TaskResult], TensorData]

    def tensor(self, result: TaskResult, rows: int) -> Tensor:
        """Return the output; a flat list of elements has one part for each row."""
        data = self.read(result)
        if isinstance(data, list):
            shape = (len(data),) if self.rank == 1 else (rows, len(data) // rows)
        else:
            shape = data.shape
        return Tensor(self.name, self.datatype, shape, data)


class Selection(msgspec.Struct, frozen=True):
    """The part of a request that one run of an operation answers.

    Attributes:
        task: the task of its plan
        inputs: the tensors that its query has beside the rows
        parameters: values that an output sets in place of the request's parameters
    """

    operation: Operation
    tensors: OperationTensors
    task: str
    inputs: tuple[InputTensor, ...]
    outputs: tuple[SelectedOutput, ...]
    parameters: Mapping[str, ParameterValue]


class _Offer(NamedTuple):
    """One output of one operation."""

    operation: Operation
    tensors: OperationTensors
    output: OutputTensor


class _TensorsOf(NamedTuple):
    """The parts of a bundle that decide about its tensors."""

    operations: tuple[Operation, ...]
    graphs: frozenset[str]
    has_labels: bool


class _Catalogue(NamedTuple):
    """The tensors of bundles with the same tasks.

    Attributes:
        outputs: the outputs by name; of two with one name, the first
        inputs: the inputs beside the rows, by name
        companions: for an input that another one reads, the inputs that it may stand beside
        parameters: the names of the parameters
    """

    outputs: Mapping[str, _Offer]
    inputs: Mapping[str, InputTensor]
    companions: Mapping[str, list[str]]
    parameters: Collection[str]


class _Wanted(NamedTuple):
    """An output to select, with the parameters that it sets."""

    offer: _Offer
    output: SelectedOutput
    parameters: tuple[tuple[str, ParameterValue], ...] = ()


def available_inputs(bundle: LoadedBundle) -> Mapping[str, InputTensor]:
    """Return the inputs of a bundle beside the rows, by name."""
    return _catalogue(bundle).inputs


def available_outputs(bundle: LoadedBundle) -> dict[str, OutputTensor]:
    """Return the outputs of a bundle by name."""
    return {name: offer.output for name, offer in _catalogue(bundle).outputs.items()}


def expect_known_parameters(parameters: Mapping[str, object], bundle: LoadedBundle) -> None:
    """Raise InvalidQuery for a parameter that no operation has, and that is not ignored."""
    if not parameters:
        return
    known = _catalogue(bundle).parameters
    for name in parameters:
        if name not in known and not is_ignored(name):
            hint = did_you_mean(name, known)
            expected = ", ".join(known)
            raise InvalidQuery(f"parameters: expected {expected}, got {name[:60]!r}{hint}")


def select_outputs(
    input_names: tuple[str, ...], requested: tuple[RequestedOutput, ...], bundle: LoadedBundle
) -> tuple[Selection, ...]:
    """Return the operations to run: those of the outputs that a request names, or the default.

    Raises:
        InvalidQuery: an output that the bundle does not have, or an input that is missing.
    """
    return _select(_tensors_of(bundle), bundle.num_targets, input_names, requested)


@lru_cache(maxsize=256)
def _select(
    tensors_of: _TensorsOf,
    num_targets: int,
    input_names: tuple[str, ...],
    requested: tuple[RequestedOutput, ...],
) -> tuple[Selection, ...]:
    """Select by names alone, as most requests of a client have the same ones."""
    expect_distinct(requested)
    catalogue = _build_catalogue(tensors_of)
    offers = catalogue.outputs
    _expect_companions(catalogue, input_names)
    if requested:
        wanted = [_find(one, offers, num_targets) for one in requested]
    else:
        wanted = [_as_is(offer) for offer in _default(offers, input_names)]
    groups: dict[tuple[object, ...], list[_Wanted]] = {}
    for one in wanted:
        key = (one.offer.operation, one.offer.output.inputs, one.parameters)
        groups.setdefault(key, []).append(one)
    return tuple(_selection(group, input_names) for group in groups.values())


def _tensors_of(bundle: LoadedBundle) -> _TensorsOf:
    has_labels = bundle.labels is not None
    return _TensorsOf(operations.OPERATIONS, bundle.bundle_info.graphs, has_labels)


def _catalogue(bundle: LoadedBundle) -> _Catalogue:
    return _build_catalogue(_tensors_of(bundle))


@lru_cache(maxsize=64)
def _build_catalogue(of: _TensorsOf) -> _Catalogue:
    """Collect the tensors of the operations that have an output; requests share the result."""
    outputs: dict[str, _Offer] = {}
    for operation in of.operations:
        for output in operation.tensors.outputs if operation.tensors else ():
            if output.task in of.graphs and (of.has_labels or not output.needs_labels):
                assert operation.tensors is not None
                outputs.setdefault(output.name, _Offer(operation, operation.tensors, output))
    tensors = {offer.operation: offer.tensors for offer in outputs.values()}.values()
    inputs: dict[str, InputTensor] = {}
    for one in (one for of in tensors for one in of.inputs):
        inputs.setdefault(one.name, one)
    parameters = [name for one in tensors for name in one.parameters]
    return _Catalogue(
        outputs=outputs,
        inputs=inputs,
        companions={
            one.name: [main.name for main in of.inputs if main.field is not None]
            for of in tensors
            for one in of.inputs
            if one.field is None
        },
        parameters=list(dict.fromkeys([*parameters, *OPTION_PARAMETERS])),
    )


def _expect_companions(catalogue: _Catalogue, input_names: Collection[str]) -> None:
    """Raise InvalidQuery for an input, such as `row`, without the one that it belongs to."""
    for name, mains in catalogue.companions.items():
        if name in input_names and not any(main in input_names for main in mains):
            raise InvalidQuery(f"{name}: expected {mains[0]} beside it, got none")


def _default(offers: Mapping[str, _Offer], input_names: Collection[str]) -> list[_Offer]:
    """Return the default outputs of the first operation whose inputs the request has."""
    ready = [
        offer
        for offer in offers.values()
        if offer.tensors.answers_by_default
        and offer.output.is_default
        and all(name in input_names for name in offer.output.inputs)
    ]
    if not ready:
        raise InvalidQuery(f"outputs: expected some of {', '.join(offers) or 'none'}, got none")
    return [offer for offer in ready if offer.operation is ready[0].operation]


def _find(requested: RequestedOutput, offers: Mapping[str, _Offer], num_targets: int) -> _Wanted:
    if requested.classification:
        return _find_classes(requested, offers, num_targets)
    if requested.name not in offers:
        hint = did_you_mean(requested.name, offers)
        raise InvalidQuery(
            f"outputs: expected some of {', '.join(offers)}, got {requested.name[:60]!r}{hint}"
        )
    return _as_is(offers[requested.name])


def _as_is(offer: _Offer) -> _Wanted:
    output = offer.output
    return _Wanted(
        offer, SelectedOutput(output.name, output.datatype, len(output.shape), output.read)
    )


def _find_classes(
    requested: RequestedOutput, offers: Mapping[str, _Offer], num_targets: int
) -> _Wanted:
    for offer in offers.values():
        read = offer.tensors.classes.get(requested.name)
        if read is not None:
            count = min(requested.classification, num_targets)
            output = SelectedOutput(requested.name, BYTES, 2, read)
            return _Wanted(offer, output, ((offer.tensors.count_parameter, count),))
    known = [name for offer in offers.values() for name in offer.tensors.classes]
    expected = " or ".join(dict.fromkeys(known)) or "no output"
    raise InvalidQuery(f"classification: expected it of {expected}, got {requested.name[:60]!r}")


def _selection(group: Sequence[_Wanted], input_names: Collection[str]) -> Selection:
    offer, _, parameters = group[0]
    needed = offer.output.inputs
    for name in needed:
        if name not in input_names:
            raise InvalidQuery(f"inputs: expected {name} for {offer.output.name}, got none")
    inputs = tuple(one for one in offer.tensors.inputs if one.name in needed)
    return Selection(
        offer.operation,
        offer.tensors,
        offer.output.task,
        inputs,
        tuple(one.output for one in group),
        dict(parameters),
    )
