"""Finds the operations that give the outputs of a request, by what the operations declare."""

from collections.abc import Callable, Iterator, Mapping
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
    InferRequest,
    ParameterValue,
    RequestedOutput,
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
    outputs: list[SelectedOutput]
    parameters: Mapping[str, ParameterValue]


class _Offer(NamedTuple):
    """One output of one operation."""

    operation: Operation
    tensors: OperationTensors
    output: OutputTensor


class _Wanted(NamedTuple):
    """An output to select, with the parameters that it sets."""

    offer: _Offer
    output: SelectedOutput
    parameters: tuple[tuple[str, ParameterValue], ...] = ()


def available_operations(bundle: LoadedBundle) -> Iterator[tuple[Operation, OperationTensors]]:
    """Yield the operations that have an output for this bundle."""
    for operation in operations.OPERATIONS:
        tensors = operation.tensors
        if tensors is not None and any(is_available(one, bundle) for one in tensors.outputs):
            yield operation, tensors


def is_available(output: OutputTensor, bundle: LoadedBundle) -> bool:
    """True if a bundle has the graph, and the labels, that an output needs."""
    return output.task in bundle.sessions and not (output.needs_labels and bundle.labels is None)


def available_outputs(bundle: LoadedBundle) -> dict[str, OutputTensor]:
    """Return the outputs of a bundle by name; of two with one name, the first."""
    return {name: offer.output for name, offer in _offers(bundle).items()}


def parameter_names(bundle: LoadedBundle) -> list[str]:
    """Return the names of the parameters that requests for a bundle may have."""
    known = [name for _, one in available_operations(bundle) for name in one.parameters]
    return list(dict.fromkeys([*known, *OPTION_PARAMETERS]))


def expect_known_parameters(parameters: Mapping[str, object], bundle: LoadedBundle) -> None:
    """Raise InvalidQuery for a parameter that no operation has, and that is not ignored."""
    if not parameters:
        return
    known = parameter_names(bundle)
    for name in parameters:
        if name not in known and not is_ignored(name):
            hint = did_you_mean(name, known)
            expected = ", ".join(known)
            raise InvalidQuery(f"parameters: expected {expected}, got {name[:60]!r}{hint}")


def select_outputs(request: InferRequest, bundle: LoadedBundle) -> list[Selection]:
    """Return the operations to run: those of the outputs that the request names, or the default.

    Raises:
        InvalidQuery: an output that the bundle does not have, or an input that is missing.
    """
    offers = _offers(bundle)
    _expect_main_inputs(offers, request)
    if request.outputs:
        wanted = [_find(one, offers, bundle) for one in request.outputs]
    else:
        wanted = [_as_is(offer) for offer in _default(offers, request)]
    groups: dict[tuple[object, ...], Selection] = {}
    for offer, output, parameters in wanted:
        key = (offer.operation.name, offer.output.inputs, parameters)
        if key not in groups:
            groups[key] = _selection(offer, parameters, request)
        groups[key].outputs.append(output)
    return list(groups.values())


def _offers(bundle: LoadedBundle) -> dict[str, _Offer]:
    offers: dict[str, _Offer] = {}
    for operation, tensors in available_operations(bundle):
        for output in tensors.outputs:
            if is_available(output, bundle):
                offers.setdefault(output.name, _Offer(operation, tensors, output))
    return offers


def _expect_main_inputs(offers: Mapping[str, _Offer], request: InferRequest) -> None:
    """Raise InvalidQuery for an input, such as `row`, without the one that it belongs to."""
    for offer in offers.values():
        mains = [one.name for one in offer.tensors.inputs if one.field is not None]
        for one in offer.tensors.inputs:
            is_alone = one.name in request.inputs and not any(n in request.inputs for n in mains)
            if one.field is None and is_alone:
                raise InvalidQuery(f"{one.name}: expected {mains[0]} beside it, got none")


def _default(offers: Mapping[str, _Offer], request: InferRequest) -> list[_Offer]:
    """Return the default outputs of the first operation whose inputs the request has."""
    ready = [
        offer
        for offer in offers.values()
        if offer.tensors.answers_by_default
        and offer.output.is_default
        and all(name in request.inputs for name in offer.output.inputs)
    ]
    if not ready:
        raise InvalidQuery(f"outputs: expected some of {', '.join(offers) or 'none'}, got none")
    return [offer for offer in ready if offer.operation is ready[0].operation]


def _find(
    requested: RequestedOutput, offers: Mapping[str, _Offer], bundle: LoadedBundle
) -> _Wanted:
    if requested.classification:
        return _find_classes(requested, offers, bundle)
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
    requested: RequestedOutput, offers: Mapping[str, _Offer], bundle: LoadedBundle
) -> _Wanted:
    for offer in offers.values():
        read = offer.tensors.classes.get(requested.name)
        if read is not None:
            count = min(requested.classification, bundle.num_targets)
            output = SelectedOutput(requested.name, BYTES, 2, read)
            return _Wanted(offer, output, ((offer.tensors.count_parameter, count),))
    known = [name for offer in offers.values() for name in offer.tensors.classes]
    expected = " or ".join(dict.fromkeys(known)) or "no output"
    raise InvalidQuery(f"classification: expected it of {expected}, got {requested.name[:60]!r}")


def _selection(
    offer: _Offer, parameters: tuple[tuple[str, ParameterValue], ...], request: InferRequest
) -> Selection:
    needed = offer.output.inputs
    for name in needed:
        if name not in request.inputs:
            raise InvalidQuery(f"inputs: expected {name} for {offer.output.name}, got none")
    inputs = tuple(one for one in offer.tensors.inputs if one.name in needed)
    return Selection(
        offer.operation, offer.tensors, offer.output.task, inputs, [], dict(parameters)
    )
