"""Describes a bundle as the Open Inference Protocol does: its tensors, and Triton's config."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from hsoftmax.bundle import Encoder, Port
from hsoftmax.service.repository.loaded_bundle import LoadedBundle

from .declaration import Dim
from .inputs import DATATYPE_OF_KIND, HIDDEN, TEXT, row_inputs
from .selection import available_inputs, available_outputs

PLATFORM = "hsoftmax"
SERVER_NAME = "hsoftmax"
# Of the protocol's extensions, those that the service has, under the names that Triton gives them.
EXTENSIONS = (
    "classification", "model_repository", "model_repository(unload_dependents)", "schedule_policy",
    "model_configuration", "binary_tensor_data", "parameters", "statistics",
)  # fmt: skip

Json = dict[str, Any]


class TensorInfo(msgspec.Struct, frozen=True):
    """One input or output of a bundle.

    Attributes:
        shape: sizes; -1 is any number
        optional: a request may leave the input out
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


def input_names(bundle: LoadedBundle) -> list[str]:
    """Return the names of all tensors that a request for a bundle may have as inputs."""
    return [*(one.name for one in _row_tensors(bundle)), *available_inputs(bundle)]


def input_tensors(bundle: LoadedBundle) -> list[TensorInfo]:
    """Return the inputs of a bundle. Those of the rows are optional if there are several kinds."""
    rows = list(_row_tensors(bundle))
    return [*rows, *_operation_tensors(bundle)]


def output_tensors(bundle: LoadedBundle) -> list[TensorInfo]:
    """Return the outputs of a bundle, those of every operation that it has a graph for."""
    sizes = _sizes(bundle)
    return [
        TensorInfo(name, output.datatype, _shape(output.shape, sizes))
        for name, output in available_outputs(bundle).items()
    ]


def model_metadata(bundle: LoadedBundle, versions: Sequence[str]) -> Json:
    """Return the metadata of one version of a bundle; `versions` are all that are served."""
    manifest = bundle.manifest
    properties = {
        "version": bundle.version,
        "digest": manifest.digest,
        "family": manifest.family,
        "precision": manifest.precision,
        "device": bundle.device.name,
    }
    return {
        "name": bundle.name,
        "versions": list(versions),
        "platform": PLATFORM,
        "inputs": [_listed(one) for one in input_tensors(bundle)],
        "outputs": [_listed(one) for one in output_tensors(bundle)],
        "properties": properties,
    }


def model_config(bundle: LoadedBundle) -> Json:
    """Return the configuration of a bundle in the fields of Triton's `ModelConfig`."""
    return {
        "name": bundle.name,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 0,
        "input": [_input_config(one) for one in input_tensors(bundle)],
        "output": [_output_config(one) for one in output_tensors(bundle)],
        "dynamic_batching": {"priority_levels": 2, "default_priority_level": 1},
        "model_transaction_policy": {"decoupled": False},
        "parameters": {"digest": {"string_value": bundle.manifest.digest}},
    }


def _listed(tensor: TensorInfo) -> Json:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _input_config(tensor: TensorInfo) -> Json:
    return {
        "name": tensor.name,
        "data_type": _config_type(tensor.datatype),
        "dims": list(tensor.shape),
        "optional": tensor.optional,
    }


def _output_config(tensor: TensorInfo) -> Json:
    return {
        "name": tensor.name,
        "data_type": _config_type(tensor.datatype),
        "dims": list(tensor.shape),
    }


def _config_type(datatype: str) -> str:
    return f"TYPE_{'STRING' if datatype == 'BYTES' else datatype}"


def _row_tensors(bundle: LoadedBundle) -> Iterator[TensorInfo]:
    choices = row_inputs(bundle)
    optional = len(choices) > 1
    for names in choices:
        if names == (HIDDEN,):
            yield TensorInfo(HIDDEN, "FP32", (-1, bundle.hidden_size), optional)
        elif names == (TEXT,):
            yield TensorInfo(TEXT, "BYTES", (-1,), optional)
        else:
            assert bundle.encoder is not None
            yield from _encoder_tensors(bundle.encoder.description)


def _encoder_tensors(encoder: Encoder) -> Iterator[TensorInfo]:
    """Yield the inputs of an encoder, and those that a request without padding leaves out."""
    for port in encoder.inputs:
        yield TensorInfo(port.name, DATATYPE_OF_KIND[port.dtype], _port_shape(port), True)


def _port_shape(port: Port) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else -1 for size in port.shape)


def _operation_tensors(bundle: LoadedBundle) -> Iterator[TensorInfo]:
    """Yield the inputs beside the rows; one that every output needs is not optional."""
    sizes = _sizes(bundle)
    outputs = available_outputs(bundle).values()
    for one in available_inputs(bundle).values():
        optional = not all(one.name in output.inputs for output in outputs)
        yield TensorInfo(one.name, one.datatype, _shape(one.shape, sizes), optional)


def _sizes(bundle: LoadedBundle) -> Mapping[str, int]:
    """Return the sizes of a bundle that the shapes of tensors name."""
    manifest = bundle.manifest
    named = {"num_targets": manifest.num_targets, "num_clusters": manifest.num_clusters,
             **manifest.attributes}  # fmt: skip
    return {name: size for name, size in named.items() if type(size) is int}


def _shape(shape: Sequence[Dim], sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else sizes.get(size, -1) for size in shape)
