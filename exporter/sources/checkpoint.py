"""Reads the named tensors of a PyTorch checkpoint.

A zip archive is read as data (`torch_archive`). A file of PyTorch before 1.6 is read by PyTorch
itself, with `weights_only`, which admits tensors, numbers, strings and containers and runs no code
of the file. Dictionaries are flattened: `{"model": {"head.weight": ...}}` becomes
`model.head.weight`. Values that are no tensors have names too.
"""

import argparse
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hsoftmax.exporter.errors import SourceError
from hsoftmax.exporter.files.input_file import expect_justified
from hsoftmax.models.arrays import Array
from hsoftmax.models.decoder_errors import decoding

from .detection import checkpoint_pickles
from .pickle_reader import expect_plain_checkpoint
from .torch_archive import read_archive

_MAX_DEPTH = 6  # nested dictionaries
_MAX_NAMES = 1_000_000  # a dictionary that contains itself has them without end
_MAX_ITEM_BYTES = 4  # of a number; a tensor may repeat its numbers, by a stride of 0


def read_checkpoint(path: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, Array]]:
    """Yield the tensors whose dotted names `is_wanted` accepts; 16-bit floats become float32.

    Raises:
        SourceError: a damaged file, or a checkpoint that holds more than data.
    """
    if zipfile.is_zipfile(path):
        yield from read_archive(path, is_wanted)
        return
    checkpoint, num_bytes = _load_checkpoint(path), 0
    if _count_names(checkpoint, _MAX_DEPTH, {}) > _MAX_NAMES:
        raise SourceError(f"{path.name}: expected at most {_MAX_NAMES} tensors, got more")
    for name, tensor in _flatten(checkpoint, _MAX_DEPTH):
        if is_wanted(name):
            num_bytes += _MAX_ITEM_BYTES * math.prod(getattr(tensor, "shape", ()))
            expect_justified(f"{path.name}: {name}", num_bytes, path.stat().st_size)
            yield name, _to_array(name, tensor, path)


def _count_names(content: Any, max_depth: int, known: dict[tuple[int, int], int]) -> int:  # noqa: ANN401
    """Return the number of names in nested dictionaries, each of which is visited once a depth."""
    if not isinstance(content, Mapping) or max_depth == 0:
        return 0
    place = (id(content), max_depth)
    if place not in known:
        inner = (_count_names(value, max_depth - 1, known) for value in content.values())
        known[place] = len(content) + sum(inner)
    return known[place]


def _load_checkpoint(path: Path) -> Any:  # noqa: ANN401 -- a checkpoint holds anything
    try:
        import torch
    except ModuleNotFoundError:
        raise SourceError(
            f"{path.name}: expected PyTorch to read this older checkpoint with, got none: "
            "pip install '.[pytorch]', or save it with PyTorch 1.6 or newer"
        ) from None
    expect_plain_pickles(path)
    try:
        # fairseq stores its command line, an argparse.Namespace; its content is checked as well.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for damaged files
        raise SourceError(f"{path.name}: expected {_describe_error(error)}") from None


def expect_plain_pickles(path: Path) -> None:
    """Raise SourceError for a checkpoint that PyTorch's reader would not end to read."""

    def damaged(reason: str) -> SourceError:
        return SourceError(
            f"{path.name}: expected a whole PyTorch checkpoint, got one that is damaged ({reason})"
        )

    with decoding(damaged):
        for content in checkpoint_pickles(path):
            expect_plain_checkpoint(content)


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
    except Exception:  # torch raises many types
        raise SourceError(
            f"{path.name}: {name}: expected a dense tensor, got {tensor.dtype} {tensor.layout}"
        ) from None
    return np.ascontiguousarray(array)
