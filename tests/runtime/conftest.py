"""Fixtures of the native kernels: the library, and each instruction set of this machine."""

import os
from pathlib import Path

import pytest

from hsoftmax.runtime.native import NativeLibrary, load_library
from hsoftmax.runtime.native import library as loading

if "NATIVE_LIBRARY" in os.environ:  # `make test-native` compiles one with sanitizers
    loading.FOLDER = Path(os.environ["NATIVE_LIBRARY"]).parent


def instruction_sets() -> list[str]:
    """The instruction sets of this machine."""
    library = load_library()
    if isinstance(library, str):
        return []
    names = [n for n in ("avx2", "avx512", "neon") if library.functions.hsoftmax_use(n.encode())]
    library.functions.hsoftmax_use(library.instruction_set.encode())
    return names


SETS = instruction_sets()


@pytest.fixture(scope="module")
def library() -> NativeLibrary:
    """The library must be there: the installation needs gcc, as the README says."""
    loaded = load_library()
    assert isinstance(loaded, NativeLibrary), loaded
    return loaded


@pytest.fixture(params=SETS)
def instruction_set(request, library):
    """One instruction set of this machine; the best one again afterwards."""
    assert library.functions.hsoftmax_use(request.param.encode())
    yield request.param
    library.functions.hsoftmax_use(library.instruction_set.encode())
