"""Reads named tensors of a trained module: a PyTorch checkpoint, safetensors, or npz.

A checkpoint is read with `weights_only`, which admits tensors, numbers, strings and containers and
runs no code of the file. Its dictionaries are flattened: `{"model": {"head.weight": ...}}` becomes
`model.head.weight`. Values that are no tensors have names too. A softmax is found under any prefix.
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
from .detection import file_kind, with_article

_MAX_DEPTH = 6  # nested dictionaries


def read_state(path: Path, is_wanted: Callable[[str], bool]) -> dict[str, Array]:
    """Return the tensors whose dotted names `is_wanted` accepts; 16-bit floats become float32.

    Raises:
        SourceError: another format, a damaged file, or a checkpoint that holds more than data.
    """
    kind = file_kind(path)
    if kind == "PyTorch checkpoint":
        return dict(_read_checkpoint(path, is_wanted))
    if kind in {"npz", "safetensors"}:
        return read_arrays(path, is_wanted)
    raise SourceError(
        f"{path.name}: expected a PyTorch checkpoint, safetensors or .npz, got {with_article(kind)}"
    )


def sole_prefix(tensors: Mapping[str, Array], *members: str, path: Path) -> str:
    """Return the only prefix under which all these names exist.

    Raises:
        SourceError: there is no such prefix, or there are several.
    """
    first = members[0]
    prefixes = sorted(
        prefix
        for prefix in (name.removesuffix(first) for name in tensors if name.endswith(first))
        if prefix[-1:] in {"", "."} and all(prefix + member in tensors for member in members)
    )
    if len(prefixes) == 1:
        return prefixes[0]
    is_wanted = " and ".join(members)
    if not prefixes:
        raise SourceError(
            f"{path.name}: expected {is_wanted} under any prefix, got no such tensors"
        )
    quoted = ", ".join(repr(prefix) for prefix in prefixes)
    raise SourceError(f"{path.name}: expected {is_wanted} under one prefix, got {quoted}")


def numbered(tensors: Mapping[str, Array], before: str, after: str, *, path: Path) -> list[Array]:
    """Return tensors `before0after`, `before1after`, ...; raise SourceError if one is missing."""
    result: list[Array] = []
    while (name := f"{before}{len(result)}{after}") in tensors:
        result.append(tensors[name])
    highest = max(
        (int(number) for name in tensors if (number := _number(name, before, after))), default=-1
    )
    if highest >= len(result):
        raise SourceError(
            f"{path.name}: expected {before}{len(result)}{after}, got only later ones"
        )
    return result


def _number(name: str, before: str, after: str) -> str | None:
    if not (name.startswith(before) and name.endswith(after)):
        return None
    number = name[len(before) : len(name) - len(after)]
    return number if number.isascii() and number.isdigit() else None


def _read_checkpoint(path: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, Array]]:
    for name, tensor in _flatten(_load_checkpoint(path), _MAX_DEPTH):
        if is_wanted(name):
            yield name, _to_array(name, tensor, path)


def _load_checkpoint(path: Path) -> Any:  # noqa: ANN401 -- a checkpoint holds anything
    try:
        import torch
    except ModuleNotFoundError:
        raise SourceError(
            f"{path.name}: expected PyTorch to read it with, got none: pip install '.[pytorch]'"
        ) from None
    try:
        # fairseq stores its command line, an argparse.Namespace; its content is checked as well.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except Exception as error:  # torch raises many types for damaged files
        raise SourceError(f"{path.name}: expected {_describe_error(error)}") from None


def _describe_error(error: Exception) -> str:
    if "Weights only load failed" in str(error) or "weights_only" in str(error):
        return "a checkpoint of tensors alone, got one with other objects, which are not loaded"
    return f"a whole PyTorch checkpoint, got one that is damaged ({type(error).__name__})"


def _flatten(content: Any, max_depth: int) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Yield the values in nested dictionaries by their dotted names."""
    if not isinstance(content, Mapping):
        return
    for key, value in content.items():
        if isinstance(value, Mapping) and max_depth > 1:
            for name, inner in _flatten(value, max_depth - 1):
                yield f"{key}.{name}", inner
        else:
            yield str(key), value


def _to_array(name: str, tensor: Any, path: Path) -> Array:  # noqa: ANN401
    if not hasattr(tensor, "layout"):
        raise SourceError(f"{path.name}: {name}: expected a tensor, got a {type(tensor).__name__}")
    try:
        plain = tensor.detach().cpu()
        array: Array = (plain.float() if plain.is_floating_point() else plain).numpy()
    except (RuntimeError, TypeError, NotImplementedError):
        raise SourceError(
            f"{path.name}: {name}: expected a dense tensor, got {tensor.dtype} {tensor.layout}"
        ) from None
    return np.ascontiguousarray(array)
