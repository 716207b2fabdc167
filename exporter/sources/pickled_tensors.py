"""Reads named arrays of NumPy from a pickle, as data: nothing in it is imported or called.

Dictionaries give names, joined by dots; items of lists and tuples are `arr_0`, `arr_1`, ... as in
`numpy.savez`. Several pickles in one file, as a loop over parameters writes them, are a list.

An array may be in one of these, which the libraries make of their parameters:

    Theano          a shared variable, with its array in `container.storage`; the array of a GPU
    PaddlePaddle    `tuple((name, array))`
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hsoftmax.exporter.errors import SourceError
from hsoftmax.exporter.files.input_file import expect_justified
from hsoftmax.models.arrays import Array

from .pickle_machine import PickledCall, PickledGlobal
from .pickle_reader import read_pickles
from .pickled_arrays import bytes_of, is_array, numbers, scalar

MAX_DEPTH = 6  # nested containers
_MAX_NAMES = 1_000_000  # a dictionary that contains itself has them without end
_DICTIONARIES = {"OrderedDict", "defaultdict", "dict"}
_GPU_ARRAYS = {"CudaNdarray_unpickler", "GpuArray_unpickler"}


def read_pickled(path: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, Array]]:
    """Yield the arrays whose names `is_wanted` accepts.

    Raises:
        SourceError: not a whole pickle, or a wanted name with something else than numbers.
    """
    num_bytes = 0
    for name, value in _named_values(path):
        if is_wanted(name):
            array = _array(f"{path.name}: {name}", value)
            num_bytes += array.nbytes
            expect_justified(f"{path.name}: {name}", num_bytes, path.stat().st_size)
            yield name, array


def pickled_names(path: Path) -> list[str]:
    """Return the names of all values in a pickle. Raises SourceError."""
    return [name for name, _ in _named_values(path)]


def _named_values(path: Path) -> Iterator[tuple[str, Any]]:
    pickles = read_pickles(path)
    root = pickles[0] if len(pickles) == 1 and not is_array(pickles[0]) else pickles
    expect_few_names(path, root)
    return flatten(root, MAX_DEPTH)


def expect_few_names(path: Path, root: object) -> None:
    """Raise SourceError for containers that name more tensors than any file needs."""
    if count_names(root, MAX_DEPTH, {}) > _MAX_NAMES:
        raise SourceError(f"{path.name}: expected at most {_MAX_NAMES} tensors, got more")


def is_container(value: object) -> bool:
    """Return True for a dictionary or list, the values of which have names."""
    return _children(value) is not None


def count_names(value: object, max_depth: int, known: dict[tuple[int, int], int]) -> int:
    """Return the number of names in nested containers, each of which is visited once a depth."""
    children = _children(value) if max_depth else None
    if children is None:
        return 0
    place = (id(value), max_depth)
    if place not in known:
        inner = (count_names(child, max_depth - 1, known) for _, child in children)
        known[place] = len(children) + sum(inner)
    return known[place]


def flatten(value: object, max_depth: int) -> Iterator[tuple[str, Any]]:
    """Yield the values in nested containers by their dotted names."""
    for key, child in _children(value) or ():
        if max_depth > 1 and _children(child) is not None:
            for name, inner in flatten(child, max_depth - 1):
                yield f"{key}.{name}", inner
        else:
            yield key, child


def _children(value: object) -> list[tuple[str, Any]] | None:
    """Return the named items of a container, or None for other values."""
    if isinstance(value, PickledCall) and not is_array(value):
        function = value.function
        is_dictionary = isinstance(function, PickledGlobal) and function.name in _DICTIONARIES
        return _children(value.entries) if is_dictionary else None
    if isinstance(value, Mapping):
        return [(_key(key), child) for key, child in value.items()]
    if isinstance(value, list | tuple) and not _is_list_of_integers(value):
        return [(f"arr_{place}", child) for place, child in enumerate(value)]
    return None


def _is_list_of_integers(value: list[Any] | tuple[Any, ...]) -> bool:
    return bool(value) and all(type(item) is int for item in value)


def _key(key: object) -> str:
    content = bytes_of(key)
    if content is not None:
        return content.decode("utf-8", "backslashreplace")
    return str(key) if isinstance(key, str | int | float) else "key"


def _array(name: str, value: object) -> Array:
    value = _unwrapped(value)
    if isinstance(value, bool | int | float):
        return np.array(value)
    number = scalar(value)
    return numbers(name, value) if number is None else np.asarray(number)


def _unwrapped(value: object) -> object:
    """Return the array in a library's own object, or the value itself."""
    value = _stored(value)
    if isinstance(value, PickledCall):
        match value.function, value.arguments:
            case PickledGlobal(_, "tuple"), ((_, array),):
                return array
            case PickledGlobal(_, name), (array, *_) if name in _GPU_ARRAYS:
                return array
    return value


def _stored(value: object) -> object:
    """Return the array that a shared variable of Theano holds, or the value itself."""
    storage = _attribute(_attribute(value, "container"), "storage")
    return storage[0] if isinstance(storage, list) and len(storage) == 1 else value


def _attribute(value: object, name: str) -> object:
    state = value.state if isinstance(value, PickledCall) else None
    return state.get(name) if isinstance(state, dict) else None
