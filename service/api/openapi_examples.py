"""Examples of the OpenAPI document that a served bundle answers.

The document is the same for every repository, but a row has the width of a bundle. `fit_examples`
writes the name and the sizes of the first bundle with the task into the examples of each route.
Without such a bundle, the examples stay as the operations have them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from hsoftmax.featurizers import TextInput, example_input
from hsoftmax.models.sparse_block_dot import BlockSizes
from hsoftmax.service.inference.operations import OPERATIONS, Operation
from hsoftmax.service.repository.loaded_bundle import LoadedBundle

from . import SCORE_PATH, operation_path
from .oip.infer import INFER_PATH, INFER_VERSION_PATH
from .oip.openapi import infer_example

Json = dict[str, Any]

_BATCHES = "/v1/batches"
_NDJSON = "application/x-ndjson"


def fit_examples(document: Json, bundles: Iterable[LoadedBundle]) -> Json:
    """Return a copy of the document with examples for these bundles."""
    document, served = deepcopy(document), list(bundles)
    for operation in OPERATIONS:
        if bundle := _with_task(served, _example_task(operation)):
            for name in (operation.name, *operation.aliases):
                _fit_operation(document["paths"][operation_path(name)], operation, bundle)
    if bundle := _with_task(served, "target_log_prob"):
        _fit_score(document["paths"][SCORE_PATH], bundle)
        body = document["paths"][_BATCHES]["post"]["requestBody"]["content"]["application/json"]
        body["example"]["endpoint"] = SCORE_PATH.replace("{name}", bundle.name)
    if bundle := _with_task(served, "top_k"):
        _fit_infer(document["paths"], bundle)
    for path in (path for path in document["paths"] if "{name}" in path and served):
        _name_example(document["paths"][path], served[0].name)
    return document


def _example_task(operation: Operation) -> str:
    return operation.guess_task(json.dumps(operation.example).encode())


def _fit_operation(path: Json, operation: Operation, bundle: LoadedBundle) -> None:
    content = path["post"]["requestBody"]["content"]
    content["application/json"]["example"] = fitted(operation, bundle)
    _name_example(path, bundle.name)


def fitted(operation: Operation, bundle: LoadedBundle) -> Mapping[str, object]:
    """Return the example of an operation with the sizes of a bundle that has its task."""
    example = dict(operation.example)
    if operation.name == "block_dot":
        sizes = BlockSizes(**bundle.manifest.attributes)
        example["h"] = [[_row(sizes.input_size)]]
        example["output_index"] = [[min(3, sizes.output_blocks - 1), 0]]
    else:
        example["inputs"] = [_input(bundle)]
    if "targets" in example:
        example["targets"] = [sorted({min(target, bundle.num_targets - 1) for target in (3, 17)})]
    if "k" in example:
        example["k"] = min(5, bundle.num_targets)
    return example


def _fit_score(path: Json, bundle: LoadedBundle) -> None:
    row = {"id": 1, "input": _input(bundle), "target": min(5, bundle.num_targets - 1)}
    path["post"]["requestBody"]["content"][_NDJSON]["example"] = json.dumps(row) + "\n"
    _name_example(path, bundle.name)


def _fit_infer(paths: Json, bundle: LoadedBundle) -> None:
    for path in (INFER_PATH, INFER_VERSION_PATH):
        content = paths[path]["post"]["requestBody"]["content"]
        content["application/json"]["example"] = infer_example(bundle.hidden_size)
        _name_example(paths[path], bundle.name)
        for parameter in paths[path]["post"]["parameters"]:
            if parameter["name"] == "version":
                parameter["example"] = bundle.version


def _name_example(path: Json, name: str) -> None:
    """Set the example of the path parameter `name`, unless it has one."""
    for operation in path.values():
        for parameter in operation["parameters"]:
            if parameter["name"] == "name":
                parameter.setdefault("example", name)


def _with_task(bundles: Sequence[LoadedBundle], task: str) -> LoadedBundle | None:
    return next((one for one in bundles if task in one.sessions), None)


def _input(bundle: LoadedBundle) -> Sequence[float] | TextInput:
    """Return a text or words where the bundle takes them, and else a row of numbers."""
    return example_input(bundle.featurizer) if bundle.takes_text else _row(bundle.hidden_size)


def _row(width: int) -> list[float]:
    return [round((-1) ** i * (i % 10 + 1) / 10, 1) for i in range(width)]
