"""Tests of the native library: how it is found and chosen, and what happens without it."""

import subprocess
import sys
from pathlib import Path

import pytest

from hsoftmax.runtime.devices import DeviceError
from hsoftmax.runtime.native import library as loading
from hsoftmax.runtime.native import load_library
from hsoftmax.runtime.sessions import choose_native


@pytest.fixture
def no_library(tmp_path, monkeypatch):
    """An installation without a compiler."""
    load_library.cache_clear()
    monkeypatch.setattr(loading, "FOLDER", tmp_path)
    (tmp_path / "hsoftmax.h").write_bytes((Path("native") / "hsoftmax.h").read_bytes())
    yield tmp_path / "libhsoftmax.so"
    load_library.cache_clear()


def test_without_the_library_the_graphs_compute(no_library):
    assert choose_native("auto") is None
    with pytest.raises(DeviceError, match="native: expected the native library, got none: it was"):
        choose_native("on")


def test_a_library_of_another_version_is_not_used(no_library, tmp_path):
    source = tmp_path / "other.c"
    source.write_text("int hsoftmax_abi(void) { return 7; }")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", no_library, source], check=True)
    assert choose_native("auto") is None
    with pytest.raises(DeviceError, match="expected version 4 of the library, got 7"):
        choose_native("on")


def test_a_file_that_is_no_library_is_not_used(no_library):
    no_library.write_bytes(b"\x7fELF")
    with pytest.raises(DeviceError, match="it does not load"):
        choose_native("on")


def test_off_is_off(library):
    assert choose_native("off") is None
    assert choose_native("on") == load_library()


def test_the_library_is_small_and_loads_at_once(library):
    assert (Path(loading.__file__).parent / "libhsoftmax.so").stat().st_size < 2 * 2**20
    program = (
        "from time import perf_counter as now; import numpy, hsoftmax.runtime.native as n;"
        "t = now(); n.load_library(); print(now() - t)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert float(done.stdout) < 0.1
