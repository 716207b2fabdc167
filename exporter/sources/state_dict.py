"""Named tensors of a trained module: a PyTorch checkpoint, safetensors, or npz.

A checkpoint is read with `weights_only`: tensors, numbers, strings and containers, nothing that
runs. Its dictionaries are flattened, so that `{"model": {"head.weight": ...}}` holds
`model.head.weight`, and a softmax is found under whatever prefix it has.
"""

import argparse
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hsoftmax.exporter.errors import SourceError
from hsoftmax.models.arrays import Array

from .array_files import read_arrays
from .detection import article, kind

_DEEPEST = 6  # dictionaries inside each other


def read_state(path: Path, wanted: Callable[[str], bool]) -> dict[str, Array]:
    """The tensors whose dotted names are wanted; 16-bit floats become float32.

    Raises:
        SourceError: no file of these formats, a damaged one, or one that holds more than data.
    """
    found = kind(path)
    if found == "PyTorch checkpoint":
        return dict(_checkpoint(path, wanted))
    if found in {"npz", "safetensors"}:
        return read_arrays(path, wanted)
    raise SourceError(
        f"{path.name}: expected a PyTorch checkpoint, safetensors or .npz, got {article(found)}"
    )


def sole_prefix(tensors: Mapping[str, Array], *members: str, path: Path) -> str:
    """The one prefix under which all these names exist.

    Raises:
        SourceError: there is none, or there are several.
    """
    first = members[0]
    found = sorted(
        prefix
        for prefix in (name.removesuffix(first) for name in tensors if name.endswith(first))
        if prefix[-1:] in {"", "."} and all(prefix + member in tensors for member in members)
    )
    if len(found) == 1:
        return found[0]
    wanted = " and ".join(members)
    if not found:
        raise SourceError(f"{path.name}: expected {wanted} under any prefix, got no such tensors")
    shown = ", ".join(repr(prefix) for prefix in found)
    raise SourceError(f"{path.name}: expected {wanted} under one prefix, got {shown}")


def numbered(tensors: Mapping[str, Array], before: str, after: str, *, path: Path) -> list[Array]:
    """The tensors `before0after`, `before1after`, ...; SourceError where a number is missing."""
    found: list[Array] = []
    while (name := f"{before}{len(found)}{after}") in tensors:
        found.append(tensors[name])
    highest = max(
        (int(number) for name in tensors if (number := _number(name, before, after))), default=-1
    )
    if highest >= len(found):
        raise SourceError(f"{path.name}: expected {before}{len(found)}{after}, got only later ones")
    return found


def _number(name: str, before: str, after: str) -> str | None:
    if not (name.startswith(before) and name.endswith(after)):
        return None
    number = name[len(before) : len(name) - len(after)]
    return number if number.isascii() and number.isdigit() else None


def _checkpoint(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Array]]:
    for name, tensor in _flattened(_load(path), _DEEPEST):
        if wanted(name):
            yield name, _array(name, tensor, path)


def _load(path: Path) -> Any:  # noqa: ANN401 -- a checkpoint holds anything
    try:
        import torch
    except ModuleNotFoundError:
        raise SourceError(
            f"{path.name}: expected PyTorch to read it with, got none: pip install '.[pytorch]'"
        ) from None
    try:
        # fairseq keeps its command line, an argparse.Namespace: plain data, as far as it is data.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except Exception as error:  # whatever it is that torch raises for whatever it is given
        raise SourceError(f"{path.name}: expected {_complaint(error)}") from None


def _complaint(error: Exception) -> str:
    if "Weights only load failed" in str(error) or "weights_only" in str(error):
        return "a checkpoint of tensors alone, got one with other objects, which are not loaded"
    return f"a whole PyTorch checkpoint, got one that is damaged ({type(error).__name__})"


def _flattened(content: Any, deepest: int) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Everything that is no dictionary, by its dotted name."""
    if not isinstance(content, Mapping) or deepest == 0:
        return
    for key, value in content.items():
        if isinstance(value, Mapping):
            for name, inner in _flattened(value, deepest - 1):
                yield f"{key}.{name}", inner
        elif hasattr(value, "layout"):
            yield str(key), value


def _array(name: str, tensor: Any, path: Path) -> Array:  # noqa: ANN401
    try:
        plain = tensor.detach().cpu()
        array: Array = (plain.float() if plain.is_floating_point() else plain).numpy()
    except (RuntimeError, TypeError, NotImplementedError):
        raise SourceError(
            f"{path.name}: {name}: expected a dense tensor, got {tensor.dtype} {tensor.layout}"
        ) from None
    return np.ascontiguousarray(array)
